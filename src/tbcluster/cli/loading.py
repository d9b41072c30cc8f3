"""Starting a cluster with something to look at meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from tbcluster.cli.state import own_folder
from tbcluster.cli.terminal import harmless
from tbcluster.cluster.stages import StageStatus

if TYPE_CHECKING:
    # Both take their time to import, which commands that need them not should not wait for.
    from tbcluster.cluster.cluster import Cluster
    from tbcluster.cluster.rack.rack import Rack

# Answers go to standard output; everything about them to standard error.
console = Console(stderr=True, highlight=False)


def say(line: str) -> None:
    """A line that a user should see, as it is: what others named may look like markup."""
    console.print(Text(harmless(line)))


def own_rack(*, local: bool, memory_bytes: int | None = None) -> "Rack | None":
    """The rack whose head this machine is, not started; None where it belongs to none, or with
    `local`. `memory_bytes` is the most that models may take on this machine."""
    if local:
        return None
    folder = own_folder()
    if folder.membership() is None:
        return None
    from tbcluster.cluster.rack.rack import Rack

    return Rack(folder, memory_bytes=memory_bytes, on_note=say)


class StageBars:
    """One progress bar for each stage that loads; they appear with the first status, since weights
    may have to be fetched before, and stay no longer than the block."""

    def __init__(self) -> None:
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
        if self._is_open:
            self._bars.start()
        for status in statuses:
            self._bars.update(
                self._task(status),
                completed=status.loaded_bytes,
                total=status.total_bytes or None,
            )

    def __enter__(self) -> Self:
        self._is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._bars.stop()

    def _task(self, status: StageStatus) -> TaskID:
        if status.index not in self._tasks:
            where = f"  on {status.node}" if status.node is not None else ""
            title = f"stage {status.index}  layers {status.layers}{where}"
            self._tasks[status.index] = self._bars.add_task(title, total=None)
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
        with bars:
            cluster.start()
        yield
    finally:
        cluster.close()


def stage_table(cluster: "Cluster") -> Table:
    """Who runs which layers, with what memory."""
    statuses = cluster.status().stages
    is_rack = any(status.node is not None for status in statuses)
    is_replicated = any(status.replica for status in statuses)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", justify="right")
    table.add_column("layers")
    table.add_column("memory", justify="right")
    table.add_column("on")
    if is_rack:
        table.add_column("node")
    if is_replicated:
        table.add_column("replica", justify="right")
    for status in statuses:
        memory = f"{status.memory_bytes / 2**20:,.1f} MiB"
        row = [str(status.index), str(status.layers), memory, harmless(status.backend)]
        row += [harmless(status.node or "")] if is_rack else []
        row += [str(status.replica + 1)] if is_replicated else []
        table.add_row(*map(Text, row))
    return table
