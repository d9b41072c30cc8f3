"""Several generations of one HTTP request, run together."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TypeVar

from fastapi import Request as HttpRequest

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.streams import astream
from tbcluster.core import Output, Request

T = TypeVar("T")


async def run_choices(
    cluster: Cluster, requests: list[Request]
) -> AsyncGenerator[tuple[int, Output], None]:
    """Run all requests at once; yields (index of the request, output) as they come. Leaving the
    iterator cancels those still running.

    Raises:
        TbclusterError: One of them cannot be served or failed; the others are cancelled.
    """
    merged: asyncio.Queue[tuple[int, Output | Exception]] = asyncio.Queue()

    async def pump(index: int, request: Request) -> None:
        try:
            async with aclosing(astream(cluster, request)) as outputs:
                async for output in outputs:
                    merged.put_nowait((index, output))
        except Exception as error:  # raised again by whoever takes it out
            merged.put_nowait((index, error))

    tasks = [asyncio.create_task(pump(i, request)) for i, request in enumerate(requests)]
    num_open = len(tasks)
    try:
        while num_open:
            index, output = await merged.get()
            if isinstance(output, Exception):
                raise output
            num_open -= output.finish_reason is not None
            yield index, output
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
