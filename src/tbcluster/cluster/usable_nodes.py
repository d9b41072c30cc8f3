"""Waiting for nodes that were there a moment ago."""

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from tbcluster.errors import ClusterClosedError
from tbcluster.machine import NodeState, NodeView

if TYPE_CHECKING:
    from tbcluster.cluster.rack.rack import Rack

# How long nodes may take to come back before the others do without them, once the head node is
# there: its agent may be started with the coordinator, while theirs need only connect.
PLAN_PATIENCE_S = 5.0
HEAD_PATIENCE_S = 15.0
LOOK_S = 0.05


def await_usable(
    rack: "Rack", names: Collection[str], gives_up: Callable[[], bool]
) -> Sequence[NodeView]:
    """Wait for these nodes, but not for long, nor for those that were drained or revoked; gives all
    that can be given stages by then.

    Raises:
        ClusterClosedError: It was given up.
    """
    out = [node for node in rack.view().nodes if node.is_drained or node.state is NodeState.REVOKED]
    awaited = set(names) - {node.name for node in out}
    head_patience_s = 0.0 if any(node.is_head for node in out) else HEAD_PATIENCE_S
    give_up_at = time.monotonic() + head_patience_s + PLAN_PATIENCE_S
    while True:
        usable = rack.usable()
        now = time.monotonic()
        if any(node.is_head for node in usable):
            give_up_at = min(give_up_at, now + PLAN_PATIENCE_S)
        if now >= give_up_at or {node.name for node in usable}.issuperset(awaited):
            return usable
        if gives_up():
            raise ClusterClosedError("the cluster was closed while it waited for its nodes")
        time.sleep(LOOK_S)
