"""Nodes of a simulated rack that are lost and come back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tbcluster.core import StageRange
from tbcluster.errors import PlanError, SimulationError
from tbcluster.planner.nodes import PlanRack
from tbcluster.planner.plan import PlannedReplica, Wishes
from tbcluster.planner.planning import make_plan
from tbcluster.simulator.events import Events
from tbcluster.simulator.replica import SimulatedReplica

if TYPE_CHECKING:
    from tbcluster.simulator.simulation import Scenario

# As measured on real processes (docs/failures.md): until a host that has vanished counts as lost;
# starting workers and checking that they agree; taking stages over that others have loaded.
DETECTION_S = 2.8
START_S = 0.5
# Weights from an SSD of a Mac, bytes a second; nodes keep their layers' files.
LOAD_BYTES_PER_S = 5e9
_FAILURE = re.compile(r"(?P<node>.+)@(?P<at>\d+(?:\.\d+)?)(?:-(?P<back>\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Failure:
    """A node is lost at a time, and is back at another; None for never."""

    node: str
    at_s: float
    back_s: float | None = None


def parse_failure(text: str) -> Failure:
    """ "mini2@30" for a node that is lost after 30 seconds, "mini2@30-90" for one that is back.

    Raises:
        SimulationError: It is neither.
    """
    found = _FAILURE.fullmatch(text)
    if found is None:
        raise SimulationError(f"--fail {text!r}: write NODE@SECONDS or NODE@SECONDS-SECONDS")
    at_s, back_s = float(found["at"]), float(found["back"]) if found["back"] else None
    if back_s is not None and back_s <= at_s:
        raise SimulationError(f"--fail {text!r}: the node must be back after it was lost")
    return Failure(found["node"], at_s, back_s)


class Failures:
    """Lets nodes go and come back, and plans anew for those that are there, as a rack does.

    Attributes:
        happenings: Lines for a person.
    """

    def __init__(
        self, scenario: "Scenario", events: Events, replicas: Sequence[SimulatedReplica]
    ) -> None:
        self._scenario = scenario
        self._events = events
        self._replicas = replicas
        self._away: set[str] = set()
        self.happenings: list[str] = []

    def plan(self) -> None:
        """Put all of them on the clock."""
        for failure in self._scenario.failures:
            self._events.at(failure.at_s, lambda node=failure.node: self._lose(node))  # type: ignore[misc]
            if failure.back_s is not None:
                self._events.at(failure.back_s, lambda node=failure.node: self._take_back(node))  # type: ignore[misc]

    def _lose(self, node: str) -> None:
        self._away.add(node)
        self._say(f"{node} is lost")
        for replica in self._replicas:
            if node in replica.nodes:
                before = replica.planned
                replica.pause()
                self._events.at(
                    self._events.now + DETECTION_S,
                    lambda replica=replica, before=before: self._replan(replica, before),  # type: ignore[misc]
                )

    def _take_back(self, node: str) -> None:
        """What has stages goes on with them until others are loaded."""
        self._away.discard(node)
        self._say(f"{node} is back")
        for replica in self._replicas:
            first = self._scenario.plan.replicas[self._replicas.index(replica)]
            if node in {stage.node for stage in first.stages}:
                self._replan(replica, replica.planned)

    def _replan(self, replica: SimulatedReplica, before: PlannedReplica | None) -> None:
        taken = {name for other in self._replicas if other is not replica for name in other.nodes}
        present = (node.name for node in self._scenario.rack.nodes)
        free = {name for name in present if name not in taken | self._away}
        try:
            planned = self._planned(free)
        except PlanError as error:
            self._say(f"no plan for the {len(free)} nodes that are left: {error}")
            self._hand_over(replica)
            return
        seconds = START_S + max(
            self._load_s(stage.node, stage.layers, before) for stage in planned.stages
        )
        names = ", ".join(f"{stage.node} {stage.layers}" for stage in planned.stages)
        self._events.at(self._events.now + seconds, lambda: self._resume(replica, planned, names))

    def _planned(self, names: set[str]) -> PlannedReplica:
        scenario = self._scenario
        if not names:
            raise PlanError("no node is left")
        rack = PlanRack(
            tuple(node for node in scenario.rack.nodes if node.name in names),
            {pair: link for pair, link in scenario.rack.links.items() if set(pair) <= names},
        )
        wishes = Wishes(scenario.plan.context, scenario.plan.replicas[0].streams, replicas=1)
        return make_plan(scenario.profile, rack, wishes).replicas[0]

    def _load_s(self, node: str, layers: StageRange, before: PlannedReplica | None) -> float:
        """A worker that ran the same layers keeps its weights."""
        stages = before.stages if before is not None else ()
        if any(stage.node == node and stage.layers == layers for stage in stages):
            return 0.0
        parts = self._scenario.profile.layers[layers.start : layers.end]
        return sum(part.weight_bytes for part in parts) / LOAD_BYTES_PER_S

    def _resume(self, replica: SimulatedReplica, planned: PlannedReplica, names: str) -> None:
        if {stage.node for stage in planned.stages} & self._away:
            return  # another one was lost meanwhile, whose own plan follows
        if replica.planned is not None:
            replica.pause()
        replica.resume(planned)
        self._say(f"answers again, on {names}")

    def _hand_over(self, replica: SimulatedReplica) -> None:
        others = [other for other in self._replicas if other.planned is not None]
        if others:
            replica.surrender(min(others, key=lambda other: other.num_open).adopt)

    def _say(self, line: str) -> None:
        self.happenings.append(f"{self._events.now:.1f} s: {line}")
