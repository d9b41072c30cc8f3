"""One progress bar for each node that fetches weights, and what came of it in the end."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from tbcluster.cli.loading import console, say
from tbcluster.cli.rack import plain, table
from tbcluster.cli.terminal import harmless
from tbcluster.weights.amounts import decimal

if TYPE_CHECKING:
    from tbcluster.cluster.rack.fetching import FetchStatus

# Between two lines about a node where no bars are drawn.
LINE_S = 10.0


class _Speed(TransferSpeedColumn):
    """Of what is still coming."""

    def render(self, task: Task) -> Text:
        return Text("") if task.finished or not task.speed else super().render(task)


class _TimeLeft(TimeRemainingColumn):
    """Of what is still coming."""

    def render(self, task: Task) -> Text:
        return Text("") if task.finished else super().render(task)


class FetchBars:
    """How far each node is. Where standard error is no terminal, a line for each every `LINE_S`
    seconds says so.

    Bars appear with the first status, and go when all nodes have what they need.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at: float | None = None
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            _Speed(),
            _TimeLeft(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def show(self, statuses: "Sequence[FetchStatus]") -> None:
        """The state of each node."""
        if all(status.is_done for status in statuses):
            self.close()
            return
        if not console.is_terminal:
            self._say_now_and_then(statuses)
            return
        self._bars.start()
        for status in statuses:
            name = harmless(status.node)
            if status.node not in self._tasks:
                self._tasks[status.node] = self._bars.add_task(name, total=None)
            self._bars.update(
                self._tasks[status.node],
                description=f"{name} (checking)" if status.is_checking else name,
                completed=status.done_bytes,
                total=status.total_bytes,
            )

    def close(self) -> None:
        """Leave the screen as it was."""
        self._bars.stop()
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()
        self._said_at = None

    def _say_now_and_then(self, statuses: "Sequence[FetchStatus]") -> None:
        now = self._clock()
        # What is done within the first seconds is not spoken of.
        self._said_at = now if self._said_at is None else self._said_at
        if now - self._said_at < LINE_S:
            return
        self._said_at = now
        for status in statuses:
            if not status.is_done:
                say(_line(status))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fetch_table(statuses: "Sequence[FetchStatus]") -> Table:
    """What each node has now, and where it came from."""
    columns = ("has now", "was there", "from nodes", "from the hub")
    made = table("node", *columns, right=columns, names=[status.node for status in statuses])
    for status in statuses:
        made.add_row(
            plain(status.node),
            *map(
                decimal,
                (
                    status.done_bytes,
                    status.held_bytes,
                    status.neighbour_bytes,
                    status.hub_bytes,
                ),
            ),
        )
    return made


def fetch_line(statuses: "Sequence[FetchStatus]", seconds: float) -> str:
    """All nodes together: "12.3 GB from the hub, 24.6 GB from nodes, in 61 s: 605 MB/s"."""
    hub = sum(status.hub_bytes for status in statuses)
    neighbours = sum(status.neighbour_bytes for status in statuses)
    if not hub + neighbours:
        return "everything was there already"
    rate = decimal((hub + neighbours) / max(seconds, 1e-3))
    return (
        f"{decimal(hub)} from the hub, {decimal(neighbours)} from nodes, in {seconds:.1f} s: "
        f"{rate}/s"
    )


def _line(status: "FetchStatus") -> str:
    amount = f"{decimal(status.done_bytes)} of {decimal(status.total_bytes)}"
    if status.is_checking:
        return f"{status.node}: {amount} checked"
    speed = f", {decimal(status.bytes_per_s)}/s" if status.bytes_per_s else ""
    return f"{status.node}: {amount} there{speed}"
