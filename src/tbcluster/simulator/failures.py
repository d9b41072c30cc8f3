"""Nodes of a simulated rack that are lost and come back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from tbcluster.core import StageRange
from tbcluster.errors import PlanError, SimulationError
from tbcluster.planner.nodes import PlanRack
from tbcluster.planner.plan import PlannedReplica, fingerprint
from tbcluster.planner.planning import make_plan
from tbcluster.simulator.events import Events
from tbcluster.simulator.replica import SimulatedReplica

if TYPE_CHECKING:
    from tbcluster.simulator.simulation import Scenario

# As measured on real processes (docs/failures.md): until a host that has vanished counts as lost;
# starting workers and checking that they agree.
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


@dataclass(eq=False, slots=True)
class _Course:
    """A replica, and what is under way with it.

    Attributes:
        first: What it was planned to run at the beginning.
        latest: What it runs, or ran last.
        pending: What is being loaded for it.
        number: Of the newest decision about it: what was decided before is void.
    """

    replica: SimulatedReplica
    first: PlannedReplica
    latest: PlannedReplica
    pending: PlannedReplica | None = None
    number: int = 0

    @property
    def is_up(self) -> bool:
        return self.replica.planned is not None

    @property
    def nodes(self) -> set[str]:
        """Those that others may not have: what it runs on or loads on, or ran on last."""
        claimed = nodes_of(self.pending) if self.pending is not None else set()
        return claimed | nodes_of(self.latest)


@dataclass(eq=False, slots=True)
class Failures:
    """Lets nodes go and come back, and plans anew for those that are there, as a rack does.

    Attributes:
        happenings: Lines for a person.
    """

    scenario: "Scenario"
    events: Events
    replicas: Sequence[SimulatedReplica]
    happenings: list[str] = field(default_factory=list)
    _away: set[str] = field(default_factory=set)
    _courses: list[_Course] = field(default_factory=list)

    def __post_init__(self) -> None:
        planned = self.scenario.plan.replicas
        self._courses = [
            _Course(replica, first, first)
            for replica, first in zip(self.replicas, planned, strict=True)
        ]

    def plan(self) -> None:
        """Put all of them on the clock."""
        for failure in self.scenario.failures:
            self.events.at(failure.at_s, partial(self._lose, failure.node))
            if failure.back_s is not None:
                self.events.at(failure.back_s, partial(self._take_back, failure.node))

    def _lose(self, node: str) -> None:
        self._away.add(node)
        self._say(f"{node} is lost")
        for course in self._courses:
            if node in nodes_of(course.pending or course.replica.planned):
                course.number += 1
                course.pending = None
                if course.is_up:
                    course.replica.pause()
                decide = partial(self._replan, course, course.number)
                self.events.at(self.events.now + DETECTION_S, decide)

    def _take_back(self, node: str) -> None:
        """What has stages goes on with them until others are loaded."""
        self._away.discard(node)
        self._say(f"{node} is back")
        for course in self._courses:
            if node in nodes_of(course.first):
                course.number += 1
                self._replan(course, course.number)

    def _replan(self, course: _Course, number: int) -> None:
        if number != course.number:
            return
        others = (other.nodes for other in self._courses if other is not course)
        taken = self._away.union(*others)
        free = {node.name for node in self.scenario.rack.nodes} - taken
        try:
            planned = self._planned(course, free)
        except PlanError as error:
            course.pending = None
            self._say(f"no plan for the {len(free)} nodes that are left: {error}")
            self._hand_over()
            return
        if course.is_up and fingerprint(planned) == fingerprint(course.latest):
            return
        course.pending = planned
        seconds = START_S + max(
            self._load_s(stage.node, stage.layers, course.latest) for stage in planned.stages
        )
        self.events.at(self.events.now + seconds, partial(self._resume, course, number))

    def _planned(self, course: _Course, names: set[str]) -> PlannedReplica:
        """As the user wished, if that is possible still."""
        if not names:
            raise PlanError("no node is left")
        scenario = self.scenario
        rack = PlanRack(
            tuple(node for node in scenario.rack.nodes if node.name in names),
            {pair: link for pair, link in scenario.rack.links.items() if set(pair) <= names},
        )
        context, streams = scenario.plan.context, course.first.streams
        wishes = replace(scenario.wishes, context=context, streams=streams, replicas=1)
        try:
            return make_plan(scenario.profile, rack, wishes).replicas[0]
        except PlanError:
            wishes = replace(wishes, stages=None)
            return make_plan(scenario.profile, rack, wishes).replicas[0]

    def _load_s(self, node: str, layers: StageRange, before: PlannedReplica) -> float:
        """A worker that ran the same layers keeps its weights."""
        if any(stage.node == node and stage.layers == layers for stage in before.stages):
            return 0.0
        parts = self.scenario.profile.layers[layers.start : layers.end]
        return sum(part.weight_bytes for part in parts) / LOAD_BYTES_PER_S

    def _resume(self, course: _Course, number: int) -> None:
        planned = course.pending
        if number != course.number or planned is None:
            return
        if course.is_up:
            course.replica.pause()
        course.replica.resume(planned)
        course.latest, course.pending = planned, None
        names = ", ".join(f"{stage.node} {stage.layers}" for stage in planned.stages)
        self._say(f"answers again, on {names}")
        self._hand_over()

    def _hand_over(self) -> None:
        """What waits where no stages will be goes to where some are."""
        up = [course.replica for course in self._courses if course.is_up]
        for course in self._courses:
            if up and not course.is_up and course.pending is None:
                course.replica.surrender(min(up, key=lambda one: one.num_open).adopt)

    def _say(self, line: str) -> None:
        self.happenings.append(f"{self.events.now:.1f} s: {line}")


def nodes_of(planned: PlannedReplica | None) -> set[str]:
    """Where its stages are."""
    return {stage.node for stage in planned.stages} if planned is not None else set()
