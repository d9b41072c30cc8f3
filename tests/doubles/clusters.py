"""Clusters without a model: they take memory that does not exist, and start when they are told."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Self, cast

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.catalogue import Loadable
from tbcluster.cluster.order import Order
from tbcluster.cluster.saved_preparation import SavedPreparation, saved_order
from tbcluster.cluster.status import ClusterState, ClusterStatus
from tbcluster.core import StageRange
from tbcluster.engine.statistics import EngineStatistics, merged
from tbcluster.errors import ClusterClosedError, DoesNotFitError, StageError, TbclusterError
from tbcluster.machine import NodeView
from tbcluster.planner.plan import Plan, PlannedReplica, PlannedStage

NODE = "mini1"


class ScriptedCluster:
    """One cluster, whose start waits until `may_start` is set, and its end until `may_close` is."""

    def __init__(self, machine: "ScriptedMachine", name: str, size: int, taken: int) -> None:
        self.model_name = name
        self.created_at = 0.0
        self.context_length = None
        self.may_start = threading.Event()
        self.may_close = threading.Event()
        self.may_close.set()
        self.plan: Plan | None = None
        self.ended_with: str | None = None
        # What it says of itself; None for what it does.
        self.told: ClusterStatus | None = None
        self._machine = machine
        self._size = size
        self._taken = taken
        self._state = ClusterState.STARTING
        self._on_plan: Callable[[Plan], None] = lambda _: None
        self.on_replanned: Callable[[], None] = lambda: None
        self.saved: SavedPreparation | None = None
        self.taken_now: Callable[[], Mapping[str, int]] = dict

    @property
    def preparation(self) -> Self:
        """Stands in for it, too."""
        return self

    @property
    def is_restored(self) -> bool:
        """Whether it was given what another coordinator had saved."""
        return self.saved is not None

    def to_save(self) -> SavedPreparation | None:
        """Named after the model, so that a test knows it again."""
        if self.plan is None:
            return None
        order = saved_order(Order(self.model_name))
        return SavedPreparation(order, self.model_name, "", self.plan, {NODE: ""})

    def taken_bytes(self) -> dict[str, int]:
        """What its plan takes."""
        stages = self.plan.replicas[0].stages if self.plan is not None else ()
        return {stage.node: stage.used_bytes for stage in stages}

    def taken_without(
        self, node: str, usable: Sequence[NodeView], taken: Mapping[str, int]
    ) -> dict[str, int]:
        """All of it goes to the first of the other nodes."""
        other = next(one.name for one in usable if one.name != node)
        left = self._machine.memory_bytes - taken.get(other, 0)
        if self._size > left:
            raise DoesNotFitError(f"{other} has {left} bytes", self._size - left, ())
        return {other: self._size}

    def replan(self, size: int) -> None:
        """A recovery gives its stages other memory."""
        self.plan = plan_of(self.model_name, size)
        self.on_replanned()

    def planned(self, on_plan: Callable[[Plan], None]) -> Cluster:
        """As `MakeCluster` gives it."""
        self._on_plan = on_plan
        return cast(Cluster, self)

    def start(self) -> Self:
        """Plan, wait, take memory."""
        machine = self._machine
        left = machine.memory_bytes - self._taken
        if self._size > left:
            raise DoesNotFitError(
                f"{self.model_name} takes {self._size} bytes, {left} are left",
                self._size - left,
                (),
            )
        self.plan = plan_of(self.model_name, self._size)
        self._on_plan(self.plan)
        machine.begin(self)
        self.may_start.wait(timeout=30)
        machine.end(self)
        if self._state is ClusterState.CLOSED:
            raise ClusterClosedError("closed while it was starting")
        if self.is_restored and self.model_name in machine.moved:
            raise StageError("mini1: no such folder")
        if self.model_name in machine.broken:
            raise machine.broken[self.model_name]
        self._state = ClusterState.READY
        return self

    def close(self) -> None:
        """Give the memory back."""
        self.may_close.wait(timeout=30)
        self._state = ClusterState.CLOSED
        self.may_start.set()
        self._machine.give_back(self)

    def end_requests(self, reason: str) -> None:
        """Remember why."""
        self.ended_with = reason

    def fail(self) -> None:
        """Answer nothing any more."""
        self._state = ClusterState.FAILED

    def statistics(self) -> EngineStatistics:
        """KV budgets alone are of interest."""
        return replace(merged(()), kv_used_bytes=(0,), kv_budget_bytes=(0,))

    def status(self) -> ClusterStatus:
        """Its state."""
        if self.told is not None:
            return self.told
        return ClusterStatus(self._state, self.model_name, (), 0, None, "loading stage 0")


class ScriptedMachine:
    """Memory that scripted clusters share. As a `MakeCluster` it makes one of a model's size.

    Attributes:
        waits: Whether clusters that are made now do not start by themselves.
        broken: Models that do not start, and why.
        moved: Models that do not start as they had been saved.
        starting: Those that are being loaded now; `most_at_once` is the most there ever were.
        used_bytes: What they hold; `most_bytes` is the most there ever was.
    """

    def __init__(self, memory_bytes: int, sizes: Mapping[str, int], *, waits: bool = False) -> None:
        self.memory_bytes = memory_bytes
        self.waits = waits
        self.broken: dict[str, TbclusterError] = {}
        self.moved: set[str] = set()
        self.made: list[ScriptedCluster] = []
        self.starting: list[str] = []
        self.order: list[str] = []
        self.most_at_once = 0
        self.most_bytes = 0
        self._sizes = sizes
        self._held: dict[ScriptedCluster, int] = {}
        self._lock = threading.Lock()

    def __call__(
        self,
        loadable: Loadable,
        *,
        taken_bytes: Mapping[str, int],
        taken_now: Callable[[], Mapping[str, int]],
        saved: SavedPreparation | None,
        on_plan: Callable[[Plan], None],
        on_replanned: Callable[[], None],
    ) -> Cluster:
        """A cluster that is not started."""
        name = loadable.name
        made = ScriptedCluster(self, name, self._sizes[name], sum(taken_bytes.values()))
        if not self.waits:
            made.may_start.set()
        made.saved, made.taken_now, made.on_replanned = saved, taken_now, on_replanned
        self.made.append(made)
        return made.planned(on_plan)

    def newest(self, name: str) -> ScriptedCluster:
        """The cluster that was made last for a model."""
        return next(made for made in reversed(self.made) if made.model_name == name)

    def begin(self, cluster: ScriptedCluster) -> None:
        """A load begins, which takes its memory."""
        with self._lock:
            self.starting.append(cluster.model_name)
            self.order.append(cluster.model_name)
            self.most_at_once = max(self.most_at_once, len(self.starting))
            self._held[cluster] = self._sizes[cluster.model_name]
            self.most_bytes = max(self.most_bytes, sum(self._held.values()))

    def end(self, cluster: ScriptedCluster) -> None:
        """A load has ended."""
        with self._lock:
            self.starting.remove(cluster.model_name)

    def give_back(self, cluster: ScriptedCluster) -> None:
        """A cluster's memory is free."""
        with self._lock:
            self._held.pop(cluster, None)


def plan_of(name: str, size: int) -> Plan:
    """One stage that takes `size` bytes."""
    stage = PlannedStage(NODE, StageRange(0, 1), size, 0, 0, 0, size, 0.0, 0.0, 0.0)
    replica = PlannedReplica((stage,), 0.0, 0.0, 1, 1, 1.0, 1.0, 1.0)
    return Plan(name, (replica,), (), 1, 1, ())
