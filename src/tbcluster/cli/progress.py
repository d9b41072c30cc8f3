"""What long work shows meanwhile: a spinner or a bar on a terminal, else a line now and then."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.text import Text

from tbcluster.cli.terminal import harmless

# Before something is worth a line to somebody who sits there: most of what is done takes less.
SAY_AFTER_S = 1.5
# The same in a file, where nobody waits for it; and between two lines about one thing.
SAY_AGAIN_S = 10.0
_LOOK_S = 0.2
# What has bars of its own.
_HAS_BARS = ("fetching", "loading")


class Doings:
    """Which lines to say of what is being done; pure.

    A thing is spoken of once it has lasted for a while, and again every `SAY_AGAIN_S`, with how
    long that is.

    Args:
        after_s: That while.
    """

    def __init__(self, after_s: float = SAY_AFTER_S) -> None:
        self._after_s = after_s
        self._doing: str | None = None
        self._since = 0.0
        self._said_at: float | None = None

    def see(self, doing: str | None, now: float) -> str | None:
        """The line that is due; `now` is in seconds and never goes back."""
        if doing != self._doing:
            self._doing, self._since, self._said_at = doing, now, None
        if doing is None or doing.startswith(_HAS_BARS):
            return None
        lasted = now - self._since
        if self._said_at is None:
            if lasted < self._after_s:
                return None
            self._said_at = now
            return f"{doing} ..."
        if now - self._said_at < SAY_AGAIN_S:
            return None
        self._said_at = now
        return f"{doing} ... ({lasted:.0f} s)"


@contextmanager
def saying(
    doing: Callable[[], str | None],
    console: Console,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Say what is being done while the block runs, a line for each thing that takes its time.

    Args:
        doing: What is being done now, in words; asked in a thread of its own.
    """
    ended = threading.Event()

    def watch() -> None:
        doings = Doings(SAY_AFTER_S if console.is_terminal else SAY_AGAIN_S)
        while not ended.wait(_LOOK_S):
            line = doings.see(doing(), clock())
            if line is not None:
                console.print(Text(harmless(line)))

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def busy(what: str, console: Console) -> Iterator[Callable[[str], None]]:
    """Show that something is being done while the block runs: on a terminal a spinner, which is
    gone in the end; else lines, if it takes its time. What is given is called when something else
    is being done."""
    if console.is_terminal:
        with console.status(_spoken(what)) as status:
            yield lambda other: status.update(_spoken(other))
        return
    doings = [what]
    with saying(lambda: doings[-1], console):
        yield doings.append


def _spoken(what: str) -> Text:
    return Text(f"{harmless(what)} ...")


class CountBar:
    """How many of a known number are done: a bar on a terminal, else a line every `SAY_AGAIN_S`
    seconds. It is gone when the block ends."""

    def __init__(
        self,
        what: str,
        total: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total = what, total
        self._console, self._clock = console, clock
        self._said_at = clock()
        self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task: TaskID = self._bar.add_task(harmless(what), total=total)

    def show(self, done: int) -> None:
        """So many are done."""
        self._bar.update(self._task, completed=done)
        now = self._clock()
        if not self._console.is_terminal and now - self._said_at >= SAY_AGAIN_S:
            self._said_at = now
            self._console.print(Text(harmless(f"{self._what}: {done:,} of {self._total:,}")))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
