"""Runs a generation for an HTTP request and hands what comes of it to a dialect.

A dialect is a `Writer` for streams and a function of the finished answer for everything else.
"""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from pydantic_core import from_json

from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Reasoning, Text
from tbcluster.answers.splitter import TOOL_CALLS, AnswerSplitter
from tbcluster.core import FinishReason, Output, SampledToken
from tbcluster.errors import RequestError, TbclusterError
from tbcluster.server.choices import Choices, unless_disconnected
from tbcluster.server.intake import Generation, Intake
from tbcluster.server.metrics import Metrics, RequestTimer
from tbcluster.server.problems import CLIENT_CLOSED_REQUEST

# An answer of more is worded in another thread: with logprobs it takes seconds.
MANY_TOKENS = 256

Body: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finish:
    """How a choice ended.

    Attributes:
        has_calls: Whether it ended in tool calls.
        stop: The stop text that ended it, if one did.
    """

    reason: FinishReason
    has_calls: bool
    stop: str | None = None


class Delta(NamedTuple):
    """What one token added to one choice; the last of a choice carries `finish`. `sampled` holds
    the tokens that may be told of now (see `ChoiceReader.heard`)."""

    choice: int
    pieces: list[Piece]
    sampled: tuple[SampledToken, ...]
    finish: Finish | None


@dataclass(slots=True)
class Usage:
    """Token counts of a whole request, and when it ran.

    Attributes:
        started_at: When its prompt was begun, in seconds on the engine's clock, as the next two.
        first_token_at: When the first choice had its first token.
        last_token_at: When the newest token of any choice came.
    """

    num_prompt: int
    num_cached: int = 0
    num_generated: int = 0
    num_reasoning: int = 0
    started_at: float = 0.0
    first_token_at: float = 0.0
    last_token_at: float = 0.0

    @property
    def num_total(self) -> int:
        return self.num_prompt + self.num_generated


@dataclass(slots=True)
class Call:
    """A tool call of a finished answer; `arguments` is JSON."""

    call_id: str
    name: str
    arguments: str = ""

    def parsed(self) -> dict[str, Any]:
        """The arguments as an object: of a call that was cut off what is complete of them, and of
        one that is no JSON its text, in the wrapping that Anthropic advises."""
        try:
            arguments = from_json(self.arguments or "{}", allow_inf_nan=False, allow_partial=True)
        except ValueError:
            return {"INVALID_JSON": self.arguments}
        return arguments if isinstance(arguments, dict) else {"INVALID_JSON": self.arguments}


@dataclass(slots=True)
class Choice:
    """One finished choice.

    Attributes:
        deltas: What it was made of, token by token.
    """

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def pieces(self) -> list[Piece]:
        """What text, reasoning and calls were made of, in the order in which they came."""
        return [piece for delta in self.deltas for piece in delta.pieces]

    @property
    def sampled(self) -> list[SampledToken]:
        """Its tokens."""
        return [token for delta in self.deltas for token in delta.sampled]

    def add(self, delta: Delta) -> None:
        """Take one more delta in."""
        self.deltas.append(delta)
        self.finish = delta.finish
        for piece in delta.pieces:
            match piece:
                case Text(text):
                    self.text += text
                case Reasoning(text):
                    self.reasoning += text
                case CallStart(_, call_id, name):
                    self.calls.append(Call(call_id, name))
                case CallArguments(index, text):
                    self.calls[index].arguments += text


class Writer(Protocol):
    """Words a stream in one dialect. Each method gives the bytes to send, event by event."""

    media_type: str

    def opening(self) -> Iterable[bytes]:
        """Before anything has come."""
        ...

    def delta(self, delta: Delta) -> Iterable[bytes]:
        """A token of a choice."""
        ...

    def closing(self, usage: Usage) -> Iterable[bytes]:
        """After the last token of the last choice."""
        ...

    def failure(self, error: TbclusterError) -> Iterable[bytes]:
        """Instead of the rest."""
        ...


class Answer:
    """One request's answer as it grows. `usage` is right once `deltas` has ended."""

    def __init__(self, intake: Intake, generation: Generation, http: HttpRequest) -> None:
        self._cluster = intake.cluster
        self._model = intake.name
        self._generation = generation
        self._http = http
        self._caller = getattr(http.state, "caller", None)
        self.usage = Usage(generation.num_prompt_tokens)
        self._readers = [ChoiceReader(generation) for _ in generation.requests]

    async def whole(
        self,
        word: Callable[[list[Choice], Usage], Body],
        keep: Callable[[Body], None] | None = None,
    ) -> Response:
        """The answer in one JSON object.

        Args:
            word: Makes it, in another thread if it is long.
            keep: Is given it, in this one.
        """
        choices = await unless_disconnected(self._http, self._collect())
        if choices is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

        def worded() -> tuple[Body, bytes]:
            body = word(choices, self.usage)
            return body, msgspec.json.encode(body)

        is_long = self.usage.num_generated > MANY_TOKENS
        body, content = await run_in_threadpool(worded) if is_long else worded()
        if keep is not None:
            keep(body)
        return Response(content, media_type="application/json")

    async def stream(self, writer: Writer) -> Response:
        """A stream whose first token has already come: what can be refused is refused with a
        status code."""
        deltas = self.deltas()
        first = await unless_disconnected(self._http, anext(deltas))
        if first is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return StreamingResponse(
            _events(writer, first, deltas, self.usage),
            media_type=writer.media_type,
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """What comes, token by token. Leaving the iterator cancels what still runs."""
        timer = timer_of(self._http, self._model)
        outcome = "cancelled"
        try:
            async with Choices(self._cluster, self._generation.requests) as choices:
                self._charge(self.usage.num_prompt)
                async for index, output in choices:
                    timer.output(output, index)
                    delta = self._read(index, output)
                    if delta.finish is not None:
                        choices.end(index)
                    yield delta
            outcome = "ok"
        except RequestError as error:
            outcome = "error"
            if error.param != "prompt":
                raise
            # The engine does not know what its prompt was made of.
            raise type(error)(str(error), self._generation.prompt_param) from error
        except TbclusterError:
            outcome = "error"
            raise
        finally:
            timer.end(outcome)

    def _read(self, index: int, output: Output) -> Delta:
        reader = self._readers[index]
        pieces, finish = reader.read(output)
        if output.num_generated_tokens == 1 and index % self._generation.num_choices == 0:
            self.usage.num_cached += output.num_cached_tokens
        if self.usage.num_generated == 0:
            self.usage.started_at = output.started_at
            self.usage.first_token_at = output.first_token_at
        self.usage.last_token_at = output.emitted_at
        self.usage.num_generated += 1
        self._charge(1)
        self.usage.num_reasoning += reader.is_reasoning(pieces)
        return Delta(index, pieces, reader.heard(output), finish)

    async def _collect(self) -> list[Choice]:
        choices = [Choice() for _ in self._generation.requests]
        async with aclosing(self.deltas()) as deltas:
            async for delta in deltas:
                choices[delta.choice].add(delta)
        return choices

    def _charge(self, num_tokens: int) -> None:
        """At once, and not when the answer ends: others of the same caller begin meanwhile."""
        if self._caller is not None:
            self._caller.charge(num_tokens)


class ChoiceReader:
    """Turns one choice's outputs into pieces."""

    def __init__(self, generation: Generation) -> None:
        self._splitter: AnswerSplitter | None = None
        if generation.new_splitter is not None:
            self._splitter = generation.new_splitter()
        self._max_calls = generation.max_calls
        self._was_reasoning = False
        self._num_released = 0
        # Where in the choice's text a token ends, and the token.
        self._unheard: deque[tuple[float, SampledToken]] = deque()

    def read(self, output: Output) -> tuple[list[Piece], Finish | None]:
        """The pieces that an output makes certain, and how the choice ends with it, if it does."""
        reason = output.finish_reason
        if self._splitter is None:
            pieces: list[Piece] = [Text(output.text)] if output.text else []
            return pieces, Finish(reason, False, output.stop) if reason else None
        pieces = self._wanted(self._splitter.feed(output.text))
        if self._has_enough_calls:
            return pieces, Finish(FinishReason.STOP, True)
        if reason is None:
            return pieces, None
        pieces += self._wanted(self._splitter.finish(reason))
        has_calls = self._splitter.finish_word == TOOL_CALLS
        return pieces, Finish(reason, has_calls, output.stop)

    def heard(self, output: Output) -> tuple[SampledToken, ...]:
        """The tokens that may be told of now: all their text is out. Those that a stop text is made
        of never are."""
        self._num_released += len(output.text)
        end = inf if output.stop is not None else self._num_released + output.num_held
        self._unheard.append((end, output.sampled))
        heard = []
        while self._unheard and self._unheard[0][0] <= self._num_released:
            heard.append(self._unheard.popleft()[1])
        return tuple(heard)

    def is_reasoning(self, pieces: list[Piece]) -> bool:
        """Whether the token counts as reasoning; one without text counts as the one before it."""
        if pieces:
            self._was_reasoning = isinstance(pieces[-1], Reasoning)
        return self._was_reasoning

    @property
    def _has_enough_calls(self) -> bool:
        assert self._splitter is not None  # noqa: S101 - asked by `read` alone
        return self._max_calls is not None and self._splitter.num_calls >= self._max_calls

    def _wanted(self, pieces: list[Piece]) -> list[Piece]:
        """Without the calls that are too many."""
        most = self._max_calls
        if most is None:
            return pieces
        calls = (CallStart, CallArguments)
        return [piece for piece in pieces if not isinstance(piece, calls) or piece.index < most]


def timer_of(http: HttpRequest, model: str) -> RequestTimer:
    """What times an HTTP request for a model, from its arrival."""
    metrics: Metrics = http.app.state.metrics
    return metrics.begin(http.scope["path"], model, getattr(http.state, "arrived_at", None))


async def _events(
    writer: Writer, first: Delta, rest: AsyncGenerator[Delta, None], usage: Usage
) -> AsyncIterator[bytes]:
    """A stream, event by event. What one token makes is sent at once."""
    async with aclosing(rest):
        yield b"".join([*writer.opening(), *writer.delta(first)])
        try:
            async for delta in rest:
                if events := b"".join(writer.delta(delta)):
                    yield events
        except TbclusterError as error:
            yield b"".join(writer.failure(error))
        else:
            yield b"".join(writer.closing(usage))
