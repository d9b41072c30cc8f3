"""/v1/chat/completions: how its answers and streams are worded."""

from collections.abc import Iterator
from typing import Any

from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Reasoning, Text
from tbcluster.server.deltas import Choice, Delta, Finish, Usage
from tbcluster.server.openai.chunks import ChunkWriter
from tbcluster.server.openai.envelope import Envelope, usage_body
from tbcluster.server.openai.logprobs import chat_logprobs

WHOLE = "chat.completion"
CHUNK = "chat.completion.chunk"


def chat_body(envelope: Envelope, choices: list[Choice], usage: Usage) -> dict[str, Any]:
    """The whole answer."""
    bodies = [
        {
            "index": index,
            "message": _message(choice),
            "logprobs": _logprobs(envelope, choice),
            "finish_reason": finish_word(choice.finish),
        }
        for index, choice in enumerate(choices)
    ]
    return {**envelope.body(WHOLE, bodies), "usage": usage_body(usage)}


class ChatWriter(ChunkWriter):
    """A streamed answer: the role first, then what comes, then why it ended."""

    def __init__(self, envelope: Envelope, num_choices: int, *, includes_usage: bool) -> None:
        super().__init__(CHUNK, envelope, includes_usage=includes_usage)
        self._num_choices = num_choices

    def opening(self) -> Iterator[bytes]:
        """The role of each choice."""
        for index in range(self._num_choices):
            yield self._chunk(index, {"role": "assistant", "content": ""})

    def delta(self, delta: Delta) -> Iterator[bytes]:
        """A chunk for each piece; logprobs come with the first, or in a chunk of their own."""
        logprobs = None
        if self._envelope.shows_logprobs and delta.sampled:
            logprobs = chat_logprobs(self._envelope.texts, delta.sampled)
        for piece in delta.pieces:
            yield self._chunk(delta.choice, _delta(piece), logprobs=logprobs)
            logprobs = None
        if logprobs is not None:
            yield self._chunk(delta.choice, {}, logprobs=logprobs)
        if delta.finish is not None:
            yield self._chunk(delta.choice, {}, finish=delta.finish)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish: Finish | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_word(finish),
        }
        return self._event(choice)


def finish_word(finish: Finish | None) -> str | None:
    """Why a choice ended, in the dialect's words."""
    if finish is None:
        return None
    return "tool_calls" if finish.has_calls else finish.reason.value


def _message(choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": choice.text if choice.text or not choice.calls else None,
        "refusal": None,
    }
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.calls:
        message["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in choice.calls
        ]
    return message


def _delta(piece: Piece) -> dict[str, Any]:
    match piece:
        case Text(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text}
        case CallStart(index, call_id, name):
            function = {"name": name, "arguments": ""}
            call = {"index": index, "id": call_id, "type": "function", "function": function}
            return {"tool_calls": [call]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def _logprobs(envelope: Envelope, choice: Choice) -> dict[str, Any] | None:
    if not envelope.shows_logprobs:
        return None
    return chat_logprobs(envelope.texts, choice.sampled)
