"""Waiting for a condition, with a deadline instead of a guess."""

import threading
import time
from collections.abc import Callable

DEADLINE_S = 60.0


def wait_until(is_so: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll `is_so` until it holds; fails naming `what` when the time is up."""
    give_up = time.monotonic() + deadline_s
    while not is_so():
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {deadline_s} s in vain until {what}")
        time.sleep(0.02)


def join(thread: threading.Thread, what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for the end of a thread; fails naming `what` when the time is up."""
    thread.join(deadline_s)
    if thread.is_alive():
        raise AssertionError(f"waited {deadline_s} s in vain until {what}")
