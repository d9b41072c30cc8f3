"""Outputs as iterators: order, deadlines, silence, and readers that do not read."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.streams import Outputs, Patience, astream, stream
from tbcluster.core import FinishReason, Output, Request, SampledToken
from tbcluster.engine.sequence import Listener
from tbcluster.errors import (
    OutOfTimeError,
    QueueTimeError,
    SlowReaderError,
    StageError,
    TbclusterError,
)
from tests.doubles.virtual_time import run_virtually

T = TypeVar("T")
SOON_S = 0.5
SECONDS = st.floats(0, 1000) | st.just(inf)


class Listeners:
    """Stands in for a cluster: keeps who listens to what, and what was cancelled."""

    def __init__(self) -> None:
        self.of: dict[str, Listener] = {}
        self.cancelled: list[str] = []

    def submit(self, request: Request, listener: Listener) -> None:
        self.of[request.request_id] = listener

    def cancel(self, request: Request) -> None:
        self.cancelled.append(request.request_id)

    @property
    def cluster(self) -> Cluster:
        return cast(Cluster, self)


def request(name: str = "a") -> Request:
    return Request(name, (1,), 9)


def output(number: int, *, is_last: bool = False, at: float = 0.0) -> Output:
    return Output(
        text=f"{number} ",
        sampled=SampledToken(number),
        num_prompt_tokens=1,
        num_generated_tokens=number,
        started_at=0.0,
        first_token_at=0.0,
        emitted_at=at,
        finish_reason=FinishReason.STOP if is_last else None,
    )


def run(work: Callable[[Listeners], Coroutine[Any, Any, T]]) -> tuple[T, Listeners]:
    """What `work` gives in virtual time."""
    listeners = Listeners()
    return run_virtually(work(listeners)), listeners


async def numbers(outputs: Outputs) -> list[int | None]:
    """The tokens that come, and None for silence."""
    return [heard and heard[1].sampled.token async for heard in outputs]


def test_outputs_of_several_come_as_they_are_made() -> None:
    async def work(listeners: Listeners) -> list[tuple[int, int]]:
        got = []
        async with Outputs(listeners.cluster, [request("a"), request("b")]) as outputs:
            for name, number in (("b", 1), ("a", 2), ("b", 3)):
                listeners.of[name](output(number, is_last=number > 1))
            async for heard in outputs:
                assert heard is not None
                got.append((heard[0], heard[1].sampled.token))
        return got

    got, listeners = run(work)
    assert got == [(1, 1), (0, 2), (1, 3)]
    assert listeners.cancelled == []


def test_leaving_cancels_what_still_runs() -> None:
    async def work(listeners: Listeners) -> None:
        async with Outputs(listeners.cluster, [request("a"), request("b")]) as outputs:
            listeners.of["a"](output(1, is_last=True))
            await anext(outputs)

    assert run(work)[1].cancelled == ["b"]


def test_silence_is_told_again_and_again_until_something_comes() -> None:
    async def work(listeners: Listeners) -> list[int | None]:
        async with Outputs(listeners.cluster, [request()], quiet_s=SOON_S) as outputs:
            clock = asyncio.get_running_loop().time
            for number in (1, 2):
                assert await anext(outputs) is None
                assert clock() == pytest.approx(number * SOON_S)
            listeners.of["a"](output(1))
            listeners.of["a"](output(2, is_last=True))
            return await numbers(outputs)

    assert run(work)[0] == [1, 2]


def test_a_reader_that_is_away_is_not_told_of_every_silence() -> None:
    async def work(listeners: Listeners) -> list[int | None]:
        async with Outputs(listeners.cluster, [request()], quiet_s=SOON_S / 10) as outputs:
            await asyncio.sleep(SOON_S * 2)
            listeners.of["a"](output(1, is_last=True))
            return await numbers(outputs)

    assert run(work)[0] == [None, 1]


@pytest.mark.parametrize(
    ("patience", "has_begun", "expected"),
    [
        (Patience(queue_s=SOON_S), False, QueueTimeError),
        (Patience(queue_s=SOON_S, answer_s=2 * SOON_S), False, QueueTimeError),
        (Patience(queue_s=SOON_S, answer_s=2 * SOON_S), True, OutOfTimeError),
        (Patience(queue_s=3, answer_s=SOON_S), False, OutOfTimeError),
    ],
)
def test_who_runs_out_of_time_is_told_and_cancelled(
    patience: Patience, has_begun: bool, expected: type[TbclusterError]
) -> None:
    async def work(listeners: Listeners) -> list[Output]:
        got = []
        iterator = astream(listeners.cluster, request(), patience)
        first = asyncio.ensure_future(anext(iterator))
        await asyncio.sleep(0)
        if has_begun:
            listeners.of["a"](output(1))
            got.append(await first)
            first = asyncio.ensure_future(anext(iterator))
        with pytest.raises(OutOfTimeError) as caught:
            await first
        assert type(caught.value) is expected
        assert f"{SOON_S:g}" in str(caught.value) or has_begun
        return got

    got, listeners = run(work)
    assert len(got) == has_begun
    assert listeners.cancelled == ["a"]


def test_what_came_in_time_is_read_before_the_error() -> None:
    async def work(listeners: Listeners) -> list[int]:
        got: list[int] = []
        async with Outputs(listeners.cluster, [request()], Patience(answer_s=SOON_S)) as outputs:
            for number in (1, 2):
                listeners.of["a"](output(number))
            await asyncio.sleep(2 * SOON_S)
            # Nobody reads, and it has ended all the same.
            assert listeners.cancelled == ["a"]
            listeners.of["a"](output(3))
            for _ in range(2):
                heard = await anext(outputs)
                assert heard is not None
                got.append(heard[1].sampled.token)
            with pytest.raises(OutOfTimeError):
                await anext(outputs)
        return got

    assert run(work)[0] == [1, 2]


def test_an_answer_that_is_complete_is_not_late_however_late_it_is_read() -> None:
    async def work(listeners: Listeners) -> list[int | None]:
        async with Outputs(listeners.cluster, [request()], Patience(answer_s=SOON_S)) as outputs:
            listeners.of["a"](output(1, is_last=True))
            await asyncio.sleep(2 * SOON_S)
            return await numbers(outputs)

    assert run(work)[0] == [1]


@given(st.integers(1, 20), st.integers(0, 60))
def test_no_more_waits_for_a_reader_than_may(max_unread: int, num_outputs: int) -> None:
    async def work(listeners: Listeners) -> None:
        async with Outputs(listeners.cluster, [request()], max_unread=max_unread) as outputs:
            for number in range(num_outputs):
                listeners.of["a"](output(number))
            await asyncio.sleep(0)
            if num_outputs <= max_unread:
                for number in range(num_outputs):
                    heard = await anext(outputs)
                    assert heard is not None
                    assert heard[1].sampled.token == number
                assert listeners.cancelled == []
                return
            assert listeners.cancelled == ["a"]
            with pytest.raises(SlowReaderError, match=str(max_unread)):
                await anext(outputs)
            with pytest.raises(StopAsyncIteration):
                await anext(outputs)

    run(work)


def test_an_error_ends_the_stream_with_it() -> None:
    async def work(listeners: Listeners) -> None:
        async with Outputs(listeners.cluster, [request("a"), request("b")]) as outputs:
            listeners.of["a"](StageError("broken"))
            with pytest.raises(StageError, match="broken"):
                await anext(outputs)

    assert run(work)[1].cancelled == ["b"]


def test_a_thread_waits_no_longer_than_it_may() -> None:
    listeners = Listeners()
    with pytest.raises(QueueTimeError):
        next(stream(listeners.cluster, request(), Patience(queue_s=SOON_S / 10)))
    assert listeners.cancelled == ["a"]


def test_a_thread_gets_what_came_in_time() -> None:
    listeners = Listeners()
    submit = listeners.submit

    def answered(asked: Request, listener: Listener) -> None:
        submit(asked, listener)
        now = time.monotonic()
        listener(output(1, at=now))
        listener(output(2, at=now + 2 * SOON_S))

    cast(Any, listeners).submit = answered
    iterator = stream(listeners.cluster, request(), Patience(answer_s=SOON_S))
    assert next(iterator).sampled.token == 1
    with pytest.raises(OutOfTimeError):
        next(iterator)
    assert listeners.cancelled == ["a"]


@given(SECONDS, SECONDS, st.floats(0, 2000), st.booleans())
def test_time_is_left_until_a_limit_is_reached(
    queue_s: float, answer_s: float, waited_s: float, has_begun: bool
) -> None:
    patience = Patience(queue_s, answer_s)
    is_late = patience.left_s(waited_s, has_begun=has_begun) <= 0
    assert is_late == (waited_s >= answer_s or (not has_begun and waited_s >= queue_s))
    if is_late:
        is_queue = isinstance(patience.error(has_begun=has_begun), QueueTimeError)
        assert is_queue == (not has_begun and queue_s <= answer_s)
