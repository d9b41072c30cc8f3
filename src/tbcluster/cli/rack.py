"""What the commands that show the rack share: asking for it, and drawing it."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tbcluster.cli.loading import console
from tbcluster.cli.progress import busy
from tbcluster.cli.state import own_folder
from tbcluster.cli.terminal import harmless
from tbcluster.cluster.doctor import amounts
from tbcluster.cluster.doctor.rack_map import KIND_NAMES, RackMap
from tbcluster.cluster.rack.ask import ask_rack
from tbcluster.errors import UnknownNodeError
from tbcluster.machine import LinkView, NodeState, NodeView, Path, RackView

STATE_STYLES = {
    NodeState.ONLINE: "green",
    NodeState.OFFLINE: "red",
    NodeState.REFUSED: "red",
    NodeState.REVOKED: "dim",
}
# Names of nodes up to this length are not broken into lines.
MAX_NAME_WIDTH = 24


def output() -> Console:
    """Standard output, as wide as it is now."""
    return Console(highlight=False)


def ask_for_rack(*, inspects: bool = False, measures: bool = False) -> RackView:
    """The rack, as the coordinator sees it.

    Raises:
        RackError: This machine is not the head node of a cluster, or the coordinator does not
            answer.
    """
    folder = own_folder()
    doing = "measuring the links" if measures else "asking the nodes"
    with busy(doing, console), only_errors():
        return ask_rack(folder, inspects=inspects, measures=measures)


@contextmanager
def only_errors() -> Iterator[None]:
    """Where no coordinator runs this process is one: who comes and goes is in its answer, and
    not for the log."""
    logger = logging.getLogger("tbcluster")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def find_node(rack: RackView, wanted: str) -> NodeView:
    """The node of this name or id.

    Raises:
        UnknownNodeError: There is none.
    """
    for node in rack.nodes:
        if wanted in (node.name, node.node_id):
            return node
    names = ", ".join(node.name for node in rack.nodes) or "none"
    raise UnknownNodeError(f"no node is called {wanted!r}: there are {names}")


def plain(text: str) -> Text:
    """Text that another machine sent: neither markup nor control characters act on a terminal."""
    return Text(harmless(text))


def lines(*texts: str) -> Text:
    """A cell of several lines; empty ones are left out."""
    return Text("\n").join(plain(text) for text in texts if text)


def state_cell(node: NodeView) -> Text:
    """Where a node stands, and since when it is away."""
    drained = "drained" if node.is_drained else ""
    cell = lines(node.state.value, drained, "head" if node.is_head else "")
    is_idle = node.is_drained and node.state is NodeState.ONLINE
    cell.stylize("yellow" if is_idle else STATE_STYLES[node.state])
    heard = node.seconds_since_heard
    if node.state is not NodeState.ONLINE and heard is not None:
        cell.append(f"\n{amounts.duration(heard)} ago")
    return cell


def memory_cell(node: NodeView) -> Text:
    """What models may take of a node's memory."""
    machine = node.machine
    if machine is None or machine.memory_bytes <= 0:
        return plain("-")
    compute = machine.compute
    total = amounts.memory(machine.memory_bytes)
    if compute is None:
        return plain(total)
    return plain(f"{amounts.memory(compute.working_set_bytes).removesuffix(' GiB')} of {total}")


def table(*columns: str, right: Iterable[str] = (), names: Iterable[str] = ()) -> Table:
    """A table without lines. What does not fit a column goes on beneath: nothing is cut off.

    Args:
        right: Columns of numbers.
        names: What a column called "node" holds: other columns give way first.
    """
    made = Table(box=None, pad_edge=False, header_style="bold")
    longest = max(map(len, names), default=0)
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column == "node" and longest <= MAX_NAME_WIDTH,
        )
    return made


def path_ends(rack: RackMap, link: LinkView, path: Path) -> str:
    """Where a path leaves and arrives: "en2 -> en3 (Thunderbolt)"."""
    ends = ((link.source, path.interface), (link.target, path.remote_interface))
    kinds = [KIND_NAMES[rack.kind(*end)] for end in ends]
    return f"{path.interface} -> {path.remote_interface} ({', '.join(dict.fromkeys(kinds))})"
