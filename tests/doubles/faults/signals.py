"""Ends and wedges processes, as a crash or a stuck driver does."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def kill(pid: int) -> bool:
    """End a process with nothing asked first; whether it was there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def wedge(pid: int) -> bool:
    """Stop a process for good: it lives and does nothing. Only SIGKILL ends it then."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        return True
    return False


def wake(pid: int) -> None:
    """Let a wedged process go on, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@contextmanager
def wedged(*pids: int) -> Iterator[None]:
    """Processes that are stopped while the block runs."""
    try:
        for pid in pids:
            wedge(pid)
        yield
    finally:
        for pid in pids:
            wake(pid)
