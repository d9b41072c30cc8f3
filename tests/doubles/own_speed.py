"""A state folder in which this machine's speed is known, so that it need not be measured."""

from collections.abc import Sequence
from pathlib import Path

from tbcluster.cluster.opening import open_model
from tbcluster.cluster.own_speed import NODE_ID, node_here
from tbcluster.cluster.speed_book import SpeedBook
from tbcluster.wire.errands import MeasuredSpeed

BYTE_S = 1.5e-10


def know_speed(home: Path, *models: Path | None, node_ids: Sequence[str] = (NODE_ID,)) -> SpeedBook:
    """Note the speed of nodes on this machine with these models' weights (None: the bundled one's)
    in a state folder."""
    book = SpeedBook(home)
    machine = node_here().machine
    assert machine is not None
    kinds = {open_model(model).profile.speed_kind for model in models}
    rates = ((1, BYTE_S), (2048, 2048 * BYTE_S))
    speeds = [MeasuredSpeed(kind, rates, 1e-4, 1e-4, 1e-10) for kind in kinds]
    for node_id in node_ids:
        book.record(node_id, machine, speeds)
    return book
