"""New plans for a replica, made of the nodes of a rack that are there."""

from collections.abc import Callable
from functools import partial
from itertools import permutations
from math import inf

from tbcluster.cluster.preparation import Preparation
from tbcluster.cluster.rack.rack import Rack
from tbcluster.cluster.recovery.machine import Nodes
from tbcluster.cluster.served_model import ServedModel
from tbcluster.errors import ClusterClosedError
from tbcluster.planner.plan import Plan, PlannedReplica, fingerprint


class RackReplanner:
    """See `Replanner`.

    Args:
        preparation: What has placed the replicas.
        number: Of the replica.
    """

    def __init__(self, rack: Rack, preparation: Preparation, number: int) -> None:
        self._rack = rack
        self._preparation = preparation
        self._number = number
        self._plan: Plan | None = None
        self._is_by_hand = preparation.plan is not None and preparation.plan.is_by_hand
        # When a plan was made last, and when the one in force was.
        self._lacks_ways = False
        self.lacked_ways = False

    @property
    def seen(self) -> Nodes:
        """The nodes that were there when the replica was planned first."""
        return self._preparation.seen

    def usable(self) -> Nodes:
        """The nodes that stages can be on now."""
        return frozenset(node.name for node in self._rack.usable())

    def follow(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Have `on_change` called whenever nodes come, go, or are drained."""
        plane = self._rack.plane
        plane.follow_nodes(on_change)
        return partial(plane.unfollow_nodes, on_change)

    def is_settled(self) -> bool:
        """Whether the links between all nodes that are there have been measured."""
        return self._rack.plane.wait_for(lambda _: True, 0.0)

    def plan(self, nodes: Nodes) -> bool:
        """Make a plan for these nodes; whether it is another one than the one in force."""
        there = [node for node in self._rack.usable() if node.name in nodes]
        ends = permutations([node.node_id for node in there], 2)
        self._lacks_ways = not all(self._rack.plane.addresses(*pair) for pair in ends)
        self._plan = self._preparation.plan_again(self._number, there)
        return fingerprint(self._plan.replicas[0]) != fingerprint(self._in_force)

    @property
    def gain(self) -> float:
        """How many times the present throughput the plan that was made last would give; what a
        person has asked for is worth any switch."""
        if self._planned.is_by_hand and not self._is_by_hand:
            return inf
        return self._planned.replicas[0].tokens_per_s / self._in_force.tokens_per_s

    def prepare(self, gives_up: Callable[[], bool]) -> ServedModel:
        """Have the nodes of the plan that was made last fetch what they lack."""
        return self._preparation.prepare_again(self._number, self._planned, gives_up)

    def settle(self) -> None:
        """The stages of what was prepared last are in force."""
        self._preparation.settle(self._number)
        self.lacked_ways = self._lacks_ways
        self._is_by_hand = self._planned.is_by_hand

    @property
    def _planned(self) -> Plan:
        if self._plan is None:
            raise ClusterClosedError("no plan was made")
        return self._plan

    @property
    def _in_force(self) -> PlannedReplica:
        assert self._preparation.plan is not None  # noqa: S101 - a replica has been placed by it
        return self._preparation.plan.replicas[self._number]
