"""A request's outputs as an iterator, for threads and for asyncio."""

import asyncio
import queue
from collections.abc import AsyncGenerator, Iterator

from tbcluster.cluster.cluster import Cluster
from tbcluster.core import Output, Request
from tbcluster.errors import TbclusterError


def stream(cluster: Cluster, request: Request) -> Iterator[Output]:
    """Run a request and yield its outputs; leaving the iterator early cancels it.

    Raises:
        TbclusterError: The request cannot be served, or ended in an error.
    """
    outputs: queue.SimpleQueue[Output | TbclusterError] = queue.SimpleQueue()
    cluster.submit(request, outputs.put)
    is_over = False
    try:
        while not is_over:
            output = outputs.get()
            is_over = isinstance(output, TbclusterError) or output.finish_reason is not None
            yield _or_raise(output)
    finally:
        if not is_over:
            cluster.cancel(request)


async def astream(cluster: Cluster, request: Request) -> AsyncGenerator[Output, None]:
    """`stream` for asyncio; cancelling the task cancels the request."""
    loop = asyncio.get_running_loop()
    outputs: asyncio.Queue[Output | TbclusterError] = asyncio.Queue()

    def listen(output: Output | TbclusterError) -> None:
        try:
            loop.call_soon_threadsafe(outputs.put_nowait, output)
        except RuntimeError:
            cluster.cancel(request)  # the event loop is closed: nobody reads on

    cluster.submit(request, listen)
    is_over = False
    try:
        while not is_over:
            output = await outputs.get()
            is_over = isinstance(output, TbclusterError) or output.finish_reason is not None
            yield _or_raise(output)
    finally:
        if not is_over:
            cluster.cancel(request)


def _or_raise(output: Output | TbclusterError) -> Output:
    if isinstance(output, TbclusterError):
        raise output
    return output
