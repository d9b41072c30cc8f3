"""How fast the nodes compute: asked of those whose speed is not known yet."""

import logging
import time
from collections.abc import Callable, Sequence

from tbcluster.cluster.own_speed import CALIBRATE_S
from tbcluster.cluster.rack.control_plane import ControlPlane
from tbcluster.cluster.rack.errands import RackErrand
from tbcluster.cluster.speed_book import SpeedBook
from tbcluster.machine import NodeState, NodeView
from tbcluster.planner.nodes import NodeSpeed
from tbcluster.wire.errands import Calibrated, CalibrateSpec

logger = logging.getLogger(__name__)


class _TooLongError(Exception):
    """Nobody waits for the slowest node any longer."""


def measured_speeds(
    plane: ControlPlane,
    nodes: Sequence[NodeView],
    kind: str,
    book: SpeedBook,
    gives_up: Callable[[], bool],
) -> dict[str, NodeSpeed]:
    """The speeds of these nodes with weights of this kind, by node id. Those that are not known and
    cannot be measured now are missing.

    Args:
        nodes: Those that run stages are not measured: it would disturb them, and be wrong.
        gives_up: Asked now and then whether to stop.

    Raises:
        RackError: The rack was closed.
        ClusterClosedError: It was given up.
    """
    known = book.find(nodes, kind)
    wanted = {
        node.node_id: node
        for node in nodes
        if node.state is NodeState.ONLINE and not node.stages and node.node_id not in known
    }
    if not wanted:
        return known
    answers = _ask(plane, list(wanted), kind, gives_up)
    for node_id, node in wanted.items():
        if node_id not in answers:
            logger.warning("%s's speed could not be measured: it is taken by its chip", node.name)
        elif node.machine is not None:
            book.record(node_id, node.machine, answers[node_id].speeds)
    return book.find(nodes, kind)


def _ask(
    plane: ControlPlane, node_ids: Sequence[str], kind: str, gives_up: Callable[[], bool]
) -> dict[str, Calibrated]:
    deadline = time.monotonic() + CALIBRATE_S

    def stops() -> bool:
        if time.monotonic() > deadline:
            raise _TooLongError
        return gives_up()

    make_specs = {node_id: lambda _: CalibrateSpec((kind,)) for node_id in node_ids}
    errand = RackErrand(plane, make_specs, Calibrated, optional=frozenset(node_ids))
    try:
        results = errand.run(on_report=lambda *_: None, on_restart=lambda _: None, gives_up=stops)
    except _TooLongError:
        return {}
    return {
        node_id: result for node_id, result in results.items() if isinstance(result, Calibrated)
    }
