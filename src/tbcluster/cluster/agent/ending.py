"""When a process that runs for ever has to end."""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def call_when_told_to_end(
    end: Callable[[], None], on_left: Callable[[], None] | None = None
) -> None:
    """Call `end`, in another thread, at SIGTERM and SIGINT, and `on_left` once standard input has
    ended: then whoever started this process is gone. For the main thread.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    # The handlers do nothing: they may interrupt any line of the main thread.
    signal.set_wakeup_fd(write_end)
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: None)
    stdin = sys.stdin.fileno()
    watched = [read_end] if on_left is None else [read_end, stdin]
    threading.Thread(
        target=_watch, args=(watched, end, on_left), name="ending", daemon=True
    ).start()


def _watch(watched: list[int], end: Callable[[], None], on_left: Callable[[], None] | None) -> None:
    signals = watched[0]
    while True:
        for descriptor in select.select(watched, [], [])[0]:
            read = os.read(descriptor, 512)
            if descriptor == signals and any(number in ENDING_SIGNALS for number in read):
                end()
                return
            if descriptor != signals and not read and on_left is not None:
                watched.remove(descriptor)
                on_left()
