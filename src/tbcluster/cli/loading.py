"""Starting a cluster with something to look at meanwhile."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.text import Text

from tbcluster.cli.progress import SAY_AGAIN_S, saying
from tbcluster.cli.state import own_folder
from tbcluster.cli.terminal import harmless
from tbcluster.cluster.stage_status import StageStatus
from tbcluster.weights.amounts import decimal

if TYPE_CHECKING:
    # Both take their time to import, which commands that need them not should not wait for.
    from tbcluster.cluster.cluster import Cluster
    from tbcluster.cluster.rack.rack import Rack


class NoteConsole(Console):
    """Where notes go. A reader that has gone (`serve 2>&1 | head`) ends nothing: a server goes on
    without them."""

    def on_broken_pipe(self) -> None:
        """Say nothing any more, and let nobody else fail at it."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


# Answers go to standard output; everything about them to standard error.
console = NoteConsole(stderr=True, highlight=False)


def say(line: str) -> None:
    """A line that a user should see, as it is: what others named may look like markup."""
    console.print(Text(harmless(line)))


def own_rack(
    *,
    local: bool,
    memory_bytes: int | None = None,
    on_note: Callable[[str], None] = say,
) -> "Rack | None":
    """The rack whose head this machine is, not started; None where it belongs to none, or with
    `local`. `memory_bytes` is the most that models may take on this machine."""
    if local:
        return None
    folder = own_folder()
    if folder.membership() is None:
        return None
    from tbcluster.cluster.rack.rack import Rack

    return Rack(folder, memory_bytes=memory_bytes, on_note=on_note)


class StageBars:
    """One progress bar for each stage that loads; they appear with the first status, since weights
    may have to be fetched before, and stay no longer than the block. Where standard error is no
    terminal, a line for each every `SAY_AGAIN_S` seconds says so."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at: float | None = None
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[int, TaskID] = {}
        self._is_open = False

    def show(self, statuses: list[StageStatus]) -> None:
        """How far each stage is."""
        if not console.is_terminal:
            self._say_now_and_then(statuses)
            return
        if self._is_open:
            self._bars.start()
        for status in statuses:
            self._bars.update(
                self._task(status),
                completed=status.loaded_bytes,
                total=status.total_bytes or None,
            )

    def _say_now_and_then(self, statuses: list[StageStatus]) -> None:
        now = self._clock()
        # What is loaded within the first seconds is not spoken of.
        self._said_at = now if self._said_at is None else self._said_at
        if not self._is_open or now - self._said_at < SAY_AGAIN_S:
            return
        self._said_at = now
        for status in statuses:
            if status.loaded_bytes < status.total_bytes:
                amount = f"{decimal(status.loaded_bytes)} of {decimal(status.total_bytes)}"
                say(f"{_title(status)}: {amount} loaded")

    def __enter__(self) -> Self:
        self._is_open = True
        self._said_at = None
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._bars.stop()

    def _task(self, status: StageStatus) -> TaskID:
        if status.index not in self._tasks:
            self._tasks[status.index] = self._bars.add_task(_title(status), total=None)
        return self._tasks[status.index]


@contextmanager
def running_cluster(model: str | None, stages: int | None) -> Iterator["Cluster"]:
    """A loaded cluster on this machine, with progress bars while it loads."""
    from tbcluster.cluster.cluster import Cluster

    bars = StageBars()
    cluster = Cluster(model, stages=stages, on_progress=bars.show, on_note=say)
    with started(cluster, bars):
        yield cluster


@contextmanager
def started(cluster: "Cluster", bars: StageBars) -> Iterator[None]:
    """Load a cluster whose progress goes to these bars; close it in the end."""
    try:
        with bars, saying(lambda: cluster.status().doing, console):
            cluster.start()
        yield
    finally:
        cluster.close()


def _title(status: StageStatus) -> str:
    where = f"  on {status.node}" if status.node is not None else ""
    return f"stage {status.index}  layers {status.layers}{where}"


def stage_line(cluster: "Cluster") -> str:
    """What each stage holds in memory now, in the order of the plan that was shown before."""
    statuses = cluster.status().stages
    held = ", ".join(
        f"{status.index} ({_where(status)}) {status.memory_bytes / 2**20:,.1f} MiB"
        for status in statuses
    )
    kinds = ", ".join(dict.fromkeys(status.backend for status in statuses))
    return f"Loaded on {kinds}, by stage: {held}"


def _where(status: StageStatus) -> str:
    node = "" if status.node is None else f" on {status.node}"
    return f"layers {status.layers}{node}"
