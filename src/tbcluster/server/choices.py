"""Several generations of one HTTP request, run together."""

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Self, TypeVar

from fastapi import Request as HttpRequest

from tbcluster.cluster.cluster import Cluster
from tbcluster.core import Output, Request
from tbcluster.errors import TbclusterError

T = TypeVar("T")


class Choices:
    """Runs requests at once, as an asynchronous context manager and iterator of (index of the
    request, output) as they come. Leaving it cancels those still running.

    Raises (from the iterator):
        TbclusterError: One of them cannot be served or failed.
    """

    def __init__(self, cluster: Cluster, requests: Sequence[Request]) -> None:
        self._cluster = cluster
        self._requests = requests
        self._merged: asyncio.Queue[tuple[int, Output | TbclusterError]] = asyncio.Queue()
        self._open: set[int] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            for index, request in enumerate(self._requests):
                self._cluster.submit(request, partial(self._listen, loop, index))
                self._open.add(index)
        except BaseException:
            self._cancel_open()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cancel_open()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, Output]:
        while self._open:
            index, output = await self._merged.get()
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
        if index in self._open:
            self._open.discard(index)
            self._cluster.cancel(self._requests[index])

    def _listen(
        self, loop: asyncio.AbstractEventLoop, index: int, output: Output | TbclusterError
    ) -> None:
        try:
            loop.call_soon_threadsafe(self._merged.put_nowait, (index, output))
        except RuntimeError:
            self._cluster.cancel(self._requests[index])  # the loop is closed: nobody reads on

    def _cancel_open(self) -> None:
        for index in list(self._open):
            self.end(index)


async def unless_disconnected(request: HttpRequest, work: Awaitable[T]) -> T | None:
    """The result of `work`, or None (and `work` cancelled) when the client goes away first."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for pending in (task, gone):
            pending.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
