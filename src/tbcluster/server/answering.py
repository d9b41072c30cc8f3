"""Runs a generation for an HTTP request and hands what comes of it to a dialect.

A dialect is a `Writer` for streams and a function of the finished answer for everything else.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from math import inf
from typing import Any, TypeAlias

import msgspec
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Reasoning, Text
from tbcluster.answers.splitter import TOOL_CALLS, AnswerSplitter
from tbcluster.cluster.status import ClusterState
from tbcluster.cluster.streams import Outputs
from tbcluster.core import FinishReason, Output, SampledToken
from tbcluster.errors import RequestError, TbclusterError
from tbcluster.server.access import Caller
from tbcluster.server.deltas import Choice, Delta, Finish, Usage
from tbcluster.server.disconnection import unless_disconnected
from tbcluster.server.intake import Generation, Intake
from tbcluster.server.metrics import Metrics, RequestTimer
from tbcluster.server.options import ServerOptions
from tbcluster.server.problems import CLIENT_CLOSED_REQUEST, without_paths
from tbcluster.server.request_log import Texts, log_request
from tbcluster.server.streaming import Writer, events
from tbcluster.server.traces import TraceBook

# An answer of more is worded in another thread: with logprobs it takes seconds.
MANY_TOKENS = 256

Body: TypeAlias = dict[str, Any]


class Answer:
    """One request's answer as it grows. `usage` is right once `deltas` has ended.

    Args:
        answer_id: The `id` in its body; "" where the dialect has none.
    """

    def __init__(
        self, intake: Intake, generation: Generation, http: HttpRequest, answer_id: str = ""
    ) -> None:
        self._cluster = intake.cluster
        self._model = intake.name
        self._generation = generation
        self._http = http
        self._options = options_of(http)
        self._caller = getattr(http.state, "caller", None)
        self.usage = Usage(generation.num_prompt_tokens)
        self._readers = [ChoiceReader(generation) for _ in generation.requests]
        traces: TraceBook = http.app.state.traces
        traces.enter(http, answer_id, intake.name, generation.requests)

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
        """A stream that begins with its first token: what can be refused is refused with a status
        code. When that takes long it begins without, so that nobody takes the server for dead."""
        deltas = self.deltas(self._options.keep_alive_s)
        begun = await unless_disconnected(self._http, self._begun(deltas))
        if begun is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return StreamingResponse(
            events(
                writer,
                deltas,
                self.usage,
                first=next(iter(begun), None),
                doing=self._doing,
                keep_alive_s=self._options.keep_alive_s,
            ),
            media_type=writer.media_type,
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def deltas(self, quiet_s: float = inf) -> AsyncGenerator[Delta | None, None]:
        """What comes, token by token, and None each time nothing has come for `quiet_s` seconds.
        Leaving the iterator cancels what still runs."""
        timer = timer_of(self._http, self._model)
        outcome = "cancelled"
        texts: Texts | None = None
        try:
            if self._options.logs_text:
                texts = self._asked()
            async with Outputs(
                self._cluster,
                self._generation.requests,
                self._options.patience,
                quiet_s=quiet_s,
                max_unread=self._options.max_unread,
            ) as outputs:
                self._charge(self.usage.num_prompt)
                async for heard in outputs:
                    if heard is None:
                        yield None
                        continue
                    index, output = heard
                    timer.output(output, index)
                    if texts is not None:
                        texts.answers[index] += output.text
                    delta = self._read(index, output)
                    if delta.finish is not None:
                        outputs.end(index)
                    yield delta
            # The last token has come: what it all took is told with it.
            outcome = "ok"
            self.usage.energy = timer.end(outcome)
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
            log_request(self._http, self._model, self.usage, outcome, timer.elapsed_s, texts)

    def _asked(self) -> Texts:
        """The prompts as text, with room for the answers."""
        decode = self._cluster.tokenizer.decode
        prompts = self._generation.requests[:: self._generation.num_choices]
        return Texts(
            [decode(list(one.prompt)) for one in prompts], [""] * len(self._generation.requests)
        )

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
                if delta is not None:
                    choices[delta.choice].add(delta)
        return choices

    async def _begun(self, deltas: AsyncGenerator[Delta | None, None]) -> list[Delta]:
        """The first delta, or nothing if it does not come for long."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._options.first_wait_s
        async for delta in deltas:
            if delta is not None:
                return [delta]
            if clock() >= give_up_at:
                break
        return []

    def _doing(self) -> str:
        """What a client waits for, in one line."""
        status = self._cluster.status()
        if status.state is ClusterState.READY:
            return "waiting"
        words = [status.state.value, *([status.doing] if status.doing else ())]
        return " ".join(without_paths(": ".join(words)).split())

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


def options_of(http: HttpRequest) -> ServerOptions:
    """How the server that got an HTTP request is set up."""
    options: ServerOptions = http.app.state.options
    return options


def timer_of(http: HttpRequest, model: str) -> RequestTimer:
    """What times an HTTP request for a model, from its arrival."""
    metrics: Metrics = http.app.state.metrics
    caller: Caller | None = getattr(http.state, "caller", None)
    return metrics.begin(
        http.scope["path"],
        model,
        getattr(http.state, "arrived_at", None),
        key=None if caller is None else caller.name,
    )
