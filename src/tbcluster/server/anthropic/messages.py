"""/v1/messages: how its answers and streams are worded."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Reasoning, Text
from tbcluster.core import FinishReason
from tbcluster.errors import TbclusterError
from tbcluster.server.deltas import Call, Choice, Delta, Finish, Usage
from tbcluster.server.energy import usage_energy
from tbcluster.server.problems import Dialect, error_event
from tbcluster.server.sse import MEDIA_TYPE, comment, event

# Clients give thinking blocks back only with a signature; nobody checks this one.
SIGNATURE = "tbcluster"

JsonObject: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an answer carries besides its blocks.

    Attributes:
        max_tokens: As asked for; an answer that is cut off before met the context's end.
        shows_thinking: Whether thoughts come as text.
    """

    model: str
    max_tokens: int
    shows_thinking: bool = True
    message_id: str = field(default_factory=lambda: f"msg_{secrets.token_hex(12)}")

    def body(self, content: list[JsonObject], stop: JsonObject, usage: JsonObject) -> JsonObject:
        """A message with these blocks."""
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            **stop,
            "usage": usage,
        }

    def shown(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """The pieces, thoughts without their text where they are not to be shown."""
        for piece in pieces:
            hides = isinstance(piece, Reasoning) and not self.shows_thinking
            yield Reasoning("") if hides else piece


def message_body(envelope: Envelope, choices: list[Choice], usage: Usage) -> JsonObject:
    """The whole answer."""
    choice = choices[0]
    content = _content(envelope.shown(choice.pieces), choice.calls)
    stop = stop_body(choice.finish, usage, envelope.max_tokens)
    return envelope.body(content, stop, usage_body(usage))


def stop_body(finish: Finish | None, usage: Usage, max_tokens: int) -> JsonObject:
    """Why the answer ended, in the dialect's words; nulls while it has not."""
    return {
        "stop_reason": None if finish is None else _stop_reason(finish, usage, max_tokens),
        "stop_sequence": None if finish is None else finish.stop,
        "stop_details": None,
    }


def usage_body(usage: Usage) -> JsonObject:
    """Token counts in the dialect's words; a cached prompt's tokens are not input tokens."""
    return {
        "input_tokens": usage.num_prompt - usage.num_cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.num_cached,
        "output_tokens": usage.num_generated,
        "output_tokens_details": {"thinking_tokens": usage.num_reasoning},
        **usage_energy(usage),
    }


class MessageWriter:
    """A streamed answer: blocks one after the other, each begun, grown and ended.

    Args:
        usage: The answer's own, right for the prompt by the time the first token has come.
    """

    media_type = MEDIA_TYPE

    def __init__(self, envelope: Envelope, usage: Usage) -> None:
        self._envelope = envelope
        self._usage = usage
        self._is_begun = False
        self._index = -1
        # A call counts as one of a kind: two of them are two blocks.
        self._open: type[Piece] | int | None = None
        self._finish: Finish | None = None

    def waiting(self, doing: str) -> Iterator[bytes]:
        """A ping; before the message, which has to be the first event, a comment."""
        yield _event("ping") if self._is_begun else comment(doing)

    def opening(self) -> Iterator[bytes]:
        """The message without blocks, and the ping that follows it in this dialect."""
        self._is_begun = True
        stop = stop_body(None, self._usage, self._envelope.max_tokens)
        body = self._envelope.body([], stop, usage_body(self._usage))
        yield _event("message_start", message=body)
        yield _event("ping")

    def delta(self, delta: Delta) -> Iterator[bytes]:
        """What a token adds to the blocks."""
        self._finish = delta.finish
        for piece in self._envelope.shown(delta.pieces):
            if _kind(piece) != self._open:
                yield from self._end_block()
                self._index += 1
                self._open = _kind(piece)
                block = _new_block(piece)
                yield _event("content_block_start", index=self._index, content_block=block)
            if change := _change(piece):
                yield self._grow(change)

    def closing(self, usage: Usage) -> Iterator[bytes]:
        """The end of the last block, why the answer ended, and the final counts."""
        yield from self._end_block()
        stop = stop_body(self._finish, usage, self._envelope.max_tokens)
        yield _event("message_delta", delta=stop, usage=usage_body(usage))
        yield _event("message_stop")

    def failure(self, error: TbclusterError) -> Iterator[bytes]:
        """The error, as the last event."""
        yield event(error_event(Dialect.ANTHROPIC, error), "error")

    def _end_block(self) -> Iterator[bytes]:
        if self._open is None:
            return
        if self._open is Reasoning:
            yield self._grow({"type": "signature_delta", "signature": SIGNATURE})
        yield _event("content_block_stop", index=self._index)
        self._open = None

    def _grow(self, change: JsonObject) -> bytes:
        return _event("content_block_delta", index=self._index, delta=change)


def _event(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


def _kind(piece: Piece) -> type[Piece] | int:
    return piece.index if isinstance(piece, (CallStart, CallArguments)) else type(piece)


def _new_block(piece: Piece) -> JsonObject:
    """A block as it begins, with nothing in it."""
    match piece:
        case Text():
            return {"type": "text", "text": ""}
        case Reasoning():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case CallStart(_, call_id, name):
            return {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        case CallArguments():
            raise AssertionError("arguments follow their call's start")


def _change(piece: Piece) -> JsonObject | None:
    match piece:
        case Text(text) if text:
            return {"type": "text_delta", "text": text}
        case Reasoning(text) if text:
            return {"type": "thinking_delta", "thinking": text}
        case CallArguments(_, text) if text:
            return {"type": "input_json_delta", "partial_json": text}
    return None


def _content(pieces: Iterator[Piece], calls: Sequence[Call]) -> list[JsonObject]:
    """The blocks of a whole answer, as its stream would have made them."""
    blocks: list[JsonObject] = []
    kind: type[Piece] | int | None = None
    for piece in pieces:
        if _kind(piece) != kind:
            kind = _kind(piece)
            blocks.append(_new_block(piece))
        match piece:
            case Text(text):
                blocks[-1]["text"] += text
            case Reasoning(text):
                blocks[-1]["thinking"] += text
                blocks[-1]["signature"] = SIGNATURE
            case CallStart(index):
                blocks[-1]["input"] = calls[index].parsed()
    return blocks


def _stop_reason(finish: Finish, usage: Usage, max_tokens: int) -> str:
    if finish.has_calls:
        return "tool_use"
    if finish.stop is not None:
        return "stop_sequence"
    if finish.reason is FinishReason.STOP:
        return "end_turn"
    is_cut = usage.num_generated < max_tokens
    return "model_context_window_exceeded" if is_cut else "max_tokens"
