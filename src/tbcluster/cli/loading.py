"""Starting a cluster with something to look at meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.stages import StageStatus

# Answers go to standard output; everything about them to standard error.
console = Console(stderr=True, highlight=False)


@contextmanager
def running_cluster(
    model: str | None, stages: int | None, kv: KvOptions | None = None
) -> Iterator[Cluster]:
    """A loaded cluster, with one progress bar per stage while it loads."""
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    tasks: dict[int, TaskID] = {}

    def show(statuses: list[StageStatus]) -> None:
        for status in statuses:
            if status.index not in tasks:
                title = f"stage {status.index}  layers {status.layers}"
                tasks[status.index] = bars.add_task(title, total=None)
            bars.update(
                tasks[status.index],
                completed=status.loaded_bytes,
                total=status.total_bytes or None,
            )

    cluster = Cluster(model, stages=stages, kv=kv, on_progress=show, on_note=console.print)
    try:
        with bars:
            cluster.start()
        yield cluster
    finally:
        cluster.close()


def stage_table(cluster: Cluster) -> Table:
    """Who runs which layers, with what memory."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", justify="right")
    table.add_column("layers")
    table.add_column("memory", justify="right")
    table.add_column("on")
    for status in cluster.status().stages:
        memory = f"{status.memory_bytes / 2**20:,.1f} MiB"
        table.add_row(str(status.index), str(status.layers), memory, status.backend)
    return table
