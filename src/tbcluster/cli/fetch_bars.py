"""One progress bar for each node that fetches weights, and what came of it in the end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from tbcluster.cli.loading import console
from tbcluster.cli.rack import plain, table
from tbcluster.cli.terminal import harmless

if TYPE_CHECKING:
    from tbcluster.cluster.rack.fetching import FetchStatus

UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


class FetchBars:
    """How far each node is; nothing is drawn where standard error is no terminal.

    Bars appear with the first status, and go when all nodes have what they need.
    """

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
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


def decimal(num_bytes: float) -> str:
    """As disks and networks count: "12.3 GB", "512 kB", "0 B"."""
    for limit, unit in UNITS:
        if num_bytes >= limit:
            amount = num_bytes / limit
            return f"{amount:.3g} {unit}" if amount < 999.5 else f"{amount:,.0f} {unit}"
    return f"{num_bytes:.0f} B"
