"""Work for a client that may go away before it is done."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request as HttpRequest

T = TypeVar("T")


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
