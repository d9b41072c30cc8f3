"""/v1/completions: how its answers and streams are worded."""

from collections.abc import Iterator, Sequence
from typing import Any

from tbcluster.answers.pieces import Text
from tbcluster.server.deltas import Choice, Delta, Usage
from tbcluster.server.openai.chat import finish_word
from tbcluster.server.openai.chunks import ChunkWriter
from tbcluster.server.openai.envelope import Envelope, usage_body
from tbcluster.server.openai.logprobs import completion_logprobs

KIND = "text_completion"


def completion_body(
    envelope: Envelope, echoes: Sequence[str], choices: list[Choice], usage: Usage
) -> dict[str, Any]:
    """The whole answer; `echoes` come before the choices' texts."""
    bodies = [
        {
            "index": index,
            "text": echo + choice.text,
            "logprobs": _logprobs(envelope, choice, len(echo)),
            "finish_reason": finish_word(choice.finish),
        }
        for index, (echo, choice) in enumerate(zip(echoes, choices, strict=True))
    ]
    return {**envelope.body(KIND, bodies), "usage": usage_body(usage)}


class CompletionWriter(ChunkWriter):
    """A streamed completion."""

    def __init__(self, envelope: Envelope, echoes: Sequence[str], *, includes_usage: bool) -> None:
        super().__init__(KIND, envelope, includes_usage=includes_usage)
        self._echoes = echoes
        self._offsets = [len(echo) for echo in echoes]

    def opening(self) -> Iterator[bytes]:
        """The prompts that are to be echoed."""
        for index, echo in enumerate(self._echoes):
            if echo:
                yield self._chunk(index, echo)

    def delta(self, delta: Delta) -> Iterator[bytes]:
        """One chunk for a token that shows something."""
        text = "".join(piece.text for piece in delta.pieces if isinstance(piece, Text))
        logprobs = None
        if self._envelope.shows_logprobs and delta.sampled:
            offset = self._offsets[delta.choice]
            logprobs = completion_logprobs(self._envelope.texts, delta.sampled, offset)
            self._offsets[delta.choice] += sum(map(len, logprobs["tokens"]))
        if text or logprobs is not None or delta.finish is not None:
            word = finish_word(delta.finish)
            yield self._chunk(delta.choice, text, logprobs=logprobs, finish=word)

    def _chunk(
        self,
        index: int,
        text: str,
        *,
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return self._event(choice)


def _logprobs(envelope: Envelope, choice: Choice, offset: int) -> dict[str, Any] | None:
    if not envelope.shows_logprobs:
        return None
    return completion_logprobs(envelope.texts, choice.sampled, offset)
