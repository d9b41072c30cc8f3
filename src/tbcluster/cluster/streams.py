"""Requests' outputs as iterators, for threads and for asyncio, and how long one waits for them."""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Self, TypeAlias

from tbcluster.cluster.cluster import Cluster
from tbcluster.core import Output, Request
from tbcluster.errors import OutOfTimeError, QueueTimeError, SlowReaderError, TbclusterError

Heard: TypeAlias = Output | TbclusterError


@dataclass(frozen=True, slots=True)
class Patience:
    """How long requests may take, in seconds from when they were submitted; infinity for any time.

    Attributes:
        queue_s: Until the first token.
        answer_s: Until the last one.
    """

    queue_s: float = inf
    answer_s: float = inf

    def left_s(self, waited_s: float, *, has_begun: bool) -> float:
        """How much longer they may take, before or after their first token."""
        limit_s = self.answer_s if has_begun else min(self.queue_s, self.answer_s)
        return limit_s - waited_s

    def error(self, *, has_begun: bool) -> OutOfTimeError:
        """What they end with when no time is left."""
        if not has_begun and self.queue_s <= self.answer_s:
            return QueueTimeError(
                f"{self.queue_s:g} s have passed without a first token: too much is computed, "
                "or stages are on their way back; send the request again later"
            )
        return OutOfTimeError(
            f"the answer was not complete after {self.answer_s:g} s: ask for fewer tokens, "
            "or allow more time"
        )


PATIENT = Patience()


def stream(cluster: Cluster, request: Request, patience: Patience = PATIENT) -> Iterator[Output]:
    """Run a request and yield its outputs; leaving the iterator early cancels it.

    Raises:
        OutOfTimeError: It took longer than it may.
        TbclusterError: The request cannot be served, or ended in an error.
    """
    outputs: queue.SimpleQueue[Heard] = queue.SimpleQueue()
    # The clock that outputs are stamped with.
    begun_at = time.monotonic()
    cluster.submit(request, outputs.put)
    has_begun = is_over = False
    try:
        while not is_over:
            output = _next(outputs, patience, begun_at, has_begun)
            has_begun = True
            is_over = isinstance(output, TbclusterError) or output.finish_reason is not None
            yield _or_raise(output)
    finally:
        if not is_over:
            cluster.cancel(request)


def _next(
    outputs: "queue.SimpleQueue[Heard]", patience: Patience, begun_at: float, has_begun: bool
) -> Heard:
    left_s = patience.left_s(time.monotonic() - begun_at, has_begun=has_begun)
    try:
        output = outputs.get(timeout=None if left_s > threading.TIMEOUT_MAX else max(0, left_s))
    except queue.Empty:
        raise patience.error(has_begun=has_begun) from None
    if not isinstance(output, TbclusterError):
        # Whoever reads slowly still gets what came in time.
        came_s = output.emitted_at - begun_at
        if patience.left_s(came_s, has_begun=has_begun) < 0:
            raise patience.error(has_begun=has_begun)
    return output


async def astream(
    cluster: Cluster, request: Request, patience: Patience = PATIENT
) -> AsyncGenerator[Output, None]:
    """`stream` for asyncio; cancelling the task cancels the request."""
    async with Outputs(cluster, [request], patience) as outputs:
        async for heard in outputs:
            if heard is not None:
                yield heard[1]


class Outputs:
    """Runs requests at once, as an asynchronous context manager and iterator of (index of the
    request, output) as they come. Leaving it cancels those still running.

    Args:
        patience: For all of them together: one that has begun is enough.
        quiet_s: The iterator gives None each time nothing has come for so many seconds.
        max_unread: Most outputs that may wait for the iterator.

    Raises (from the iterator):
        OutOfTimeError: They took longer than they may.
        SlowReaderError: More outputs than that came than were taken.
        TbclusterError: One of them cannot be served or failed.
    """

    def __init__(
        self,
        cluster: Cluster,
        requests: Sequence[Request],
        patience: Patience = PATIENT,
        *,
        quiet_s: float = inf,
        max_unread: float = inf,
    ) -> None:
        self._cluster = cluster
        self._requests = requests
        self._patience = patience
        self._quiet_s = quiet_s
        self._max_unread = max_unread
        self._merged: asyncio.Queue[tuple[int, Heard] | TbclusterError | None] = asyncio.Queue()
        # Those whose end was not read, and those whose end has not come.
        self._open: set[int] = set()
        self._running: set[int] = set()
        self._has_begun = False
        # One timer looks after deadlines and silence: a token costs a look at the clock.
        self._timer: asyncio.TimerHandle | None = None
        self._begun_at = self._heard_at = 0.0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._begun_at = self._heard_at = self._loop.time()
        try:
            for index, request in enumerate(self._requests):
                self._cluster.submit(request, partial(self._listen, index))
                self._open.add(index)
                self._running.add(index)
        except BaseException:
            self._cancel_open()
            raise
        self._look()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cancel_open()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, Output] | None:
        while self._open:
            heard = await self._merged.get()
            if heard is None:
                return None
            if isinstance(heard, TbclusterError):
                self._cancel_open()
                raise heard
            index, output = heard
            if index not in self._open:
                continue
            if isinstance(output, TbclusterError):
                self._open.discard(index)
                raise output
            if output.finish_reason is not None:
                self._open.discard(index)
            return index, output
        raise StopAsyncIteration

    def end(self, index: int) -> None:
        """End one of them before its time; nothing more comes of it."""
        self._open.discard(index)
        self._cancel(index)

    # The engine's thread

    def _listen(self, index: int, output: Heard) -> None:
        try:
            self._loop.call_soon_threadsafe(self._take, index, output)
        except RuntimeError:
            self._cluster.cancel(self._requests[index])  # the loop is closed: nobody reads on

    # The loop's thread

    def _take(self, index: int, output: Heard) -> None:
        if index not in self._running:
            return
        self._has_begun = True
        self._heard_at = self._loop.time()
        if self._merged.qsize() >= self._max_unread:
            self._give_up(
                SlowReaderError(
                    f"{self._merged.qsize()} tokens wait to be read: read the answer as it comes"
                ),
                forgets=True,
            )
            return
        self._merged.put_nowait((index, output))
        if isinstance(output, TbclusterError) or output.finish_reason is not None:
            self._has_ended(index)

    def _look(self) -> None:
        """Is it too late, or has nothing come for long? Called again when that may be so."""
        now = self._loop.time()
        left_s = self._patience.left_s(now - self._begun_at, has_begun=self._has_begun)
        if left_s <= 0:
            self._give_up(self._patience.error(has_begun=self._has_begun), forgets=False)
            return
        quiet_left_s = self._heard_at + self._quiet_s - now
        if quiet_left_s <= 0:
            if self._merged.empty():
                self._merged.put_nowait(None)
            self._heard_at, quiet_left_s = now, self._quiet_s
        next_s = min(left_s, quiet_left_s)
        self._timer = self._loop.call_later(next_s, self._look) if next_s < inf else None

    def _give_up(self, error: TbclusterError, *, forgets: bool) -> None:
        """Cancel them all, whoever reads or not; `error` comes behind what waits to be read, or
        instead of it."""
        for index in list(self._running):
            self._cancel(index)
        if forgets:
            with suppress(asyncio.QueueEmpty):
                while True:
                    self._merged.get_nowait()
        self._merged.put_nowait(error)

    def _cancel(self, index: int) -> None:
        if index in self._running:
            self._has_ended(index)
            self._cluster.cancel(self._requests[index])

    def _has_ended(self, index: int) -> None:
        self._running.discard(index)
        if not self._running:
            self._stop_looking()

    def _cancel_open(self) -> None:
        for index in list(self._open):
            self.end(index)
        self._stop_looking()

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _or_raise(output: Heard) -> Output:
    if isinstance(output, TbclusterError):
        raise output
    return output
