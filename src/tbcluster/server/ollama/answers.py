"""/api/chat and /api/generate: how their answers and streams are worded."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec

from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Reasoning, Text
from tbcluster.core import SampledToken
from tbcluster.errors import TbclusterError
from tbcluster.server.deltas import Call, Choice, Delta, Finish, Usage
from tbcluster.server.openai.logprobs import chat_logprobs
from tbcluster.server.problems import Dialect, error_event
from tbcluster.server.token_texts import TokenTexts

MEDIA_TYPE = "application/x-ndjson"
NS_PER_S = 1_000_000_000

JsonObject: TypeAlias = dict[str, Any]
Shape: TypeAlias = Literal["chat", "generate"]

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all objects of one answer share.

    Attributes:
        shape: A chat's text is in a message, a generated text in `response`.
        model: As the caller named it.
        began_at: When the request came, in seconds on the monotonic clock.
    """

    shape: Shape
    model: str
    texts: TokenTexts
    shows_logprobs: bool
    began_at: float = field(default_factory=time.monotonic)

    def body(
        self, text: str, thinking: str, calls: Sequence[JsonObject], sampled: Sequence[SampledToken]
    ) -> JsonObject:
        """What has come, without how it ended."""
        said: JsonObject = {"thinking": thinking} if thinking else {}
        if calls:
            said["tool_calls"] = list(calls)
        said = shaped(self.shape, text, said)
        if self.shows_logprobs and sampled:
            said["logprobs"] = chat_logprobs(self.texts, sampled)["content"]
        return {"model": self.model, "created_at": now(), **said, "done": False}

    def end(self, finish: Finish | None, usage: Usage) -> JsonObject:
        """How it ended, and what it took; durations in nanoseconds."""
        return {
            "done": True,
            "done_reason": finish.reason.value if finish else None,
            "total_duration": nanoseconds(time.monotonic() - self.began_at),
            "load_duration": 0,
            "prompt_eval_count": usage.num_prompt,
            "prompt_eval_duration": nanoseconds(usage.first_token_at - usage.started_at),
            "eval_count": usage.num_generated,
            "eval_duration": nanoseconds(usage.last_token_at - usage.first_token_at),
        }


def shaped(shape: Shape, text: str, others: JsonObject) -> JsonObject:
    """A text, and what was said besides, where the shape has it."""
    if shape == "chat":
        return {"message": {"role": "assistant", "content": text, **others}}
    return {"response": text, **others}


def unasked_body(shape: Shape, model: str, reason: Literal["load", "unload"]) -> JsonObject:
    """The answer to a request without a prompt: whether the model is there now."""
    said = shaped(shape, "", {})
    return {"model": model, "created_at": now(), **said, "done": True, "done_reason": reason}


def answer_body(envelope: Envelope, choices: list[Choice], usage: Usage) -> JsonObject:
    """The whole answer."""
    choice = choices[0]
    calls = [_call_body(index, call) for index, call in enumerate(choice.calls)]
    body = envelope.body(choice.text, choice.reasoning, calls, choice.sampled)
    return {**body, **envelope.end(choice.finish, usage)}


class LineWriter:
    """A streamed answer, an object to a line. Calls come whole, in the order in which they end."""

    media_type = MEDIA_TYPE

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._call: Call | None = None
        self._num_calls = 0
        self._finish: Finish | None = None

    def waiting(self, doing: str) -> Iterator[bytes]:
        """Nothing: each line is a part of the answer, and clients take no empty ones. They do not
        mind the silence."""
        return iter(())

    def opening(self) -> Iterator[bytes]:
        """Nothing: the first line comes with the first token."""
        return iter(())

    def delta(self, delta: Delta) -> Iterator[bytes]:
        """A line for each piece; logprobs come with the first, or in a line of their own."""
        self._finish = delta.finish
        sampled = delta.sampled if self._envelope.shows_logprobs else ()
        for piece in delta.pieces:
            if (body := self._body(piece, sampled)) is not None:
                yield line(body)
                sampled = ()
        if delta.finish is not None and self._call is not None:
            yield line(self._envelope.body("", "", self._ended_call(), sampled))
            sampled = ()
        if sampled:
            yield line(self._envelope.body("", "", (), sampled))

    def closing(self, usage: Usage) -> Iterator[bytes]:
        """Why it ended and the counts."""
        body = self._envelope.body("", "", (), ())
        yield line({**body, **self._envelope.end(self._finish, usage)})

    def failure(self, error: TbclusterError) -> Iterator[bytes]:
        """The error, as the last line."""
        yield line(error_event(Dialect.OLLAMA, error))

    def _body(self, piece: Piece, sampled: Sequence[SampledToken]) -> JsonObject | None:
        """What a piece lets be said; of a call, only that the one before it is complete."""
        if isinstance(piece, CallArguments):
            assert self._call is not None  # noqa: S101 - a call's start comes before its arguments
            self._call.arguments += piece.text
            return None
        calls = self._ended_call()
        match piece:
            case Text(text):
                return self._envelope.body(text, "", calls, sampled)
            case Reasoning(text):
                return self._envelope.body("", text, calls, sampled)
            case CallStart(_, call_id, name):
                self._call = Call(call_id, name)
        return self._envelope.body("", "", calls, sampled) if calls else None

    def _ended_call(self) -> list[JsonObject]:
        if self._call is None:
            return []
        body = _call_body(self._num_calls, self._call)
        self._call = None
        self._num_calls += 1
        return [body]


def line(body: JsonObject) -> bytes:
    """One object of a stream."""
    return _encode(body) + b"\n"


def now() -> str:
    """The time of day as this dialect writes it."""
    return timestamp(time.time())


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as this dialect writes them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _call_body(index: int, call: Call) -> JsonObject:
    function = {"index": index, "name": call.name, "arguments": call.parsed()}
    return {"id": call.call_id, "function": function}


def nanoseconds(seconds: float) -> int:
    """A duration as this dialect writes it."""
    return max(0, round(seconds * NS_PER_S))
