"""Starting a cluster with something to look at meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.layout import PlacedRange
from tbcluster.cluster.stages import StageStatus
from tbcluster.cluster.trust.folder import TrustFolder

if TYPE_CHECKING:
    # One machine alone needs none of it, and it takes its time to import.
    from tbcluster.cluster.rack.rack import Rack

# Answers go to standard output; everything about them to standard error.
console = Console(stderr=True, highlight=False)


@contextmanager
def running_rack(*, local: bool) -> Iterator["Rack | None"]:
    """The rack whose head this machine is; None where it belongs to none, or with `local`."""
    folder = TrustFolder()
    if local or folder.membership() is None:
        yield None
        return
    from tbcluster.cluster.rack.rack import Rack

    with Rack(folder, on_note=console.print) as rack:
        yield rack


@contextmanager
def running_cluster(
    model: str | None,
    stages: int | None,
    kv: KvOptions | None = None,
    rack: "Rack | None" = None,
    placed: Sequence[PlacedRange] = (),
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
                where = f"  on {status.node}" if status.node is not None else ""
                title = f"stage {status.index}  layers {status.layers}{where}"
                tasks[status.index] = bars.add_task(title, total=None)
            bars.update(
                tasks[status.index],
                completed=status.loaded_bytes,
                total=status.total_bytes or None,
            )

    cluster = Cluster(
        model,
        stages=stages,
        kv=kv,
        rack=rack,
        placed=placed,
        on_progress=show,
        on_note=console.print,
    )
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
    is_rack = any(status.node is not None for status in cluster.status().stages)
    if is_rack:
        table.add_column("node")
    for status in cluster.status().stages:
        memory = f"{status.memory_bytes / 2**20:,.1f} MiB"
        row = (str(status.index), str(status.layers), memory, status.backend)
        table.add_row(*row, *([status.node or ""] if is_rack else []))
    return table
