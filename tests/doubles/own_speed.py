"""A state folder in which this machine's speed with certain models is known."""

from collections.abc import Sequence
from pathlib import Path

from tbcluster.cluster.opening import open_model
from tbcluster.cluster.own_speed import NODE_ID
from tbcluster.cluster.speed_book import SpeedBook
from tests.doubles.speeds import note_speeds


def know_speed(home: Path, *models: Path | None, node_ids: Sequence[str] = (NODE_ID,)) -> SpeedBook:
    """Note the speed of nodes on this machine with these models' weights (None: the bundled one's)
    in a state folder."""
    note_speeds(home, {open_model(model).profile.speed_kind for model in models}, node_ids)
    return SpeedBook(home)
