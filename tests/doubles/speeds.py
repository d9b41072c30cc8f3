"""State folders in which speeds are known, so that nothing need be measured: that takes seconds."""

from collections.abc import Iterable
from pathlib import Path

from tbcluster.cluster.own_speed import NODE_ID, node_here
from tbcluster.cluster.speed_book import SpeedBook
from tbcluster.wire.errands import MeasuredSpeed

BYTE_S = 1.5e-10
RATES = ((1, BYTE_S), (2048, 2048 * BYTE_S))


def note_speeds(home: Path, kinds: Iterable[str], node_ids: Iterable[str] = (NODE_ID,)) -> None:
    """Note in a state folder how fast nodes on this machine are with these kinds of weights
    (`ModelProfile.speed_kind`)."""
    machine = node_here().machine
    assert machine is not None
    speeds = [MeasuredSpeed(kind, RATES, 1e-4, 1e-4, 1e-10) for kind in kinds]
    for node_id in node_ids:
        SpeedBook(home).record(node_id, machine, speeds)
