"""How fast this machine computes where it plans for itself alone: measured once for each kind of
weights, and kept."""

import logging
import queue
import time
from collections.abc import Callable
from dataclasses import replace

from tbcluster.cluster.speed_book import SpeedBook, node_speed
from tbcluster.cluster.supervisor import Worker
from tbcluster.errors import ClusterClosedError, StageError
from tbcluster.hardware.cgroups import cpu_limit
from tbcluster.hardware.folders import config_folder
from tbcluster.hardware.machine import described_briefly
from tbcluster.machine import NodeState, NodeView
from tbcluster.model.device import compute_here
from tbcluster.planner.nodes import NodeSpeed
from tbcluster.wire.control import Failed, Report
from tbcluster.wire.errands import Calibrated, CalibrateSpec

logger = logging.getLogger(__name__)

# In the book, whether or not this machine is one of a rack's nodes as well.
NODE_ID = "this machine"
# On a machine that does nothing else it takes about three seconds.
CALIBRATE_S = 60.0
LOOK_S = 0.2


def speed_here(
    kind: str,
    gives_up: Callable[[], bool] = lambda: False,
    *,
    is_busy: bool = False,
    book: SpeedBook | None = None,
    on_measuring: Callable[[], None] = lambda: None,
) -> NodeSpeed | None:
    """The speed of this machine; None where it is not known and cannot be measured now.

    Args:
        kind: Of the weights (`ModelProfile.speed_kind`).
        gives_up: Asked now and then whether to stop.
        is_busy: Whether it runs stages, which measuring would disturb.
        book: Where speeds are kept; None for the user's own.
        on_measuring: Called before it is measured, which takes seconds.

    Raises:
        ClusterClosedError: It was given up.
    """
    book = book or SpeedBook(config_folder())
    try:
        here = node_here()
        known = book.find([here], kind).get(NODE_ID)
        if known is not None or is_busy:
            return known
        on_measuring()
        measured = _measured(kind, gives_up)
    except StageError as error:
        logger.warning("%s: the speed of this machine is assumed", error)
        return None
    if here.machine is not None:
        book.record(NODE_ID, here.machine, measured.speeds)
    return book.find([here], kind).get(NODE_ID)


def measure_here(kind: str) -> NodeSpeed:
    """The speed of this machine now, whatever is known of it, and not kept.

    Raises:
        StageError: It cannot be measured.
    """
    (speed,) = _measured(kind, lambda: False).speeds
    return node_speed(speed)


def node_here() -> NodeView:
    """This machine as a node, of which no more is known than its speed depends on.

    Raises:
        StageError: This system does not say how much memory there is.
    """
    machine = replace(
        described_briefly(config_folder()), compute=compute_here(), cpu_limit=cpu_limit()
    )
    return NodeView(NODE_ID, NODE_ID, NodeState.ONLINE, is_head=True, machine=machine)


def _measured(kind: str, gives_up: Callable[[], bool]) -> Calibrated:
    said: queue.SimpleQueue[Report | str] = queue.SimpleQueue()
    worker = Worker("tbcluster.stage.calibrate", CalibrateSpec((kind,)), said.put, said.put)
    deadline = time.monotonic() + CALIBRATE_S
    try:
        while time.monotonic() < deadline:
            if gives_up():
                raise ClusterClosedError("the cluster was closed while this machine was measured")
            try:
                report = said.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if isinstance(report, Calibrated):
                return report
            if isinstance(report, Failed):
                raise StageError(report.message)
            if isinstance(report, str):
                raise StageError(f"the process that measures {report}")
        raise StageError(f"measuring took more than {CALIBRATE_S:.0f} seconds")
    finally:
        worker.stop()
