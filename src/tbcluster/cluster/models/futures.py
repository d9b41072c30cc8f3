"""Work in threads of its own, and futures that several wait for: none of them can cancel what the
others wait for."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def new_future() -> "Future[Any]":
    """A future that is under way."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def done() -> "Future[None]":
    """A future whose result is there."""
    future = new_future()
    future.set_result(None)
    return future


def resolve(future: "Future[None]", error: BaseException | None = None) -> None:
    """Give it its result, unless it has one already."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def in_thread(target: Callable[[], None]) -> threading.Thread:
    """Run something that takes its time, beside everything else."""
    thread = threading.Thread(target=target, name="tbcluster-models", daemon=True)
    thread.start()
    return thread
