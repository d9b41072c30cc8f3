"""When a process that runs for ever has to end."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def call_when_told_to_end(end: Callable[[], None], *, follows_parent: bool) -> None:
    """Call `end`, in another thread, at SIGTERM and SIGINT, and with `follows_parent` once standard
    input has ended: then whoever started this process is gone. For the main thread.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    # The handlers do nothing: they may interrupt any line of the main thread.
    signal.set_wakeup_fd(write_end)
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: None)
    watched = [read_end, sys.stdin.fileno()] if follows_parent else [read_end]
    threading.Thread(target=_watch, args=(watched, end), name="ending", daemon=True).start()


def _watch(watched: list[int], end: Callable[[], None]) -> None:
    while True:
        for descriptor in select.select(watched, [], [])[0]:
            if _tells_to_end(descriptor, is_signal=descriptor == watched[0]):
                end()
                return


def _tells_to_end(descriptor: int, *, is_signal: bool) -> bool:
    read = os.read(descriptor, 512)
    return any(number in ENDING_SIGNALS for number in read) if is_signal else not read
