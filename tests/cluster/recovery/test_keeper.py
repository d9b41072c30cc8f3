"""The keeper, on stages and plans that do what the test wants."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tbcluster.cluster.news import Examined, News, NodesChanged, PathLost, StageExited
from tbcluster.cluster.recovery import keeper as keeping
from tbcluster.cluster.recovery import machine
from tbcluster.cluster.recovery.guard import Guard
from tbcluster.cluster.recovery.keeper import Keeper
from tbcluster.cluster.recovery.machine import MAX_TRIES, Nodes
from tbcluster.cluster.recovery.record import RecoveryBook
from tbcluster.cluster.stage_status import StageState, StageStatus
from tbcluster.cluster.status import ClusterState
from tbcluster.core import StageRange
from tbcluster.errors import (
    ClusterClosedError,
    PlanError,
    StageError,
    StageLostError,
    StarvedError,
    TbclusterError,
)
from tests.doubles.epochs import PROMPTS, Bench

# Ends the keeper, as closing the replica does.
END = None
ALL = frozenset("abc")


class StagesDouble:
    """Two stages that are ready after each start; news come as the test has put them."""

    def __init__(self, *news: News | None) -> None:
        self.news = list(news)
        self.statuses = [
            StageStatus(index, StageRange(index, index + 1), StageState.READY, node)
            for index, node in enumerate("ab")
        ]
        self.unreachable: str | None = None
        self.heard_at = 0.0
        self.is_connected = True
        self.dead: set[int] = set()
        self.num_reroutes = 0
        self.is_closed = False

    def next_news(
        self, *, until_ready: bool = False, timeout_s: float | None = None
    ) -> News | None:
        if not self.news:
            if timeout_s is None:
                raise StageError("the stages were stopped")
            return None
        news = self.news.pop(0)
        if news is END:
            raise StageError("the stages were stopped")
        return news

    def is_ready(self) -> bool:
        has_more = any(isinstance(news, Examined) for news in self.news)
        return self.is_connected and not has_more

    def is_better_way(self) -> bool:
        return False

    def is_broken(self) -> bool:
        return False

    def dead_stages(self) -> list[int]:
        return sorted(self.dead)

    def start(self, stage: int, epoch: int) -> None:
        self.dead.discard(stage)

    def stop(self, stages: Any) -> None:
        self.dead |= set(stages)

    def snapshot(self) -> tuple[StageStatus, ...]:
        return tuple(self.statuses)

    def reroute(self) -> None:
        self.num_reroutes += 1

    def close(self) -> None:
        self.is_closed = True


class ReplannerDouble:
    """Plans for all nodes that are there."""

    gain = 2.0
    seen = ALL
    lacked_ways = False

    def __init__(self) -> None:
        self.nodes: list[Nodes] = [ALL]
        self.num_plans = 0

    def usable(self) -> Nodes:
        return self.nodes.pop(0) if len(self.nodes) > 1 else self.nodes[0]

    def is_settled(self) -> bool:
        return True

    def plan(self, nodes: Nodes) -> bool:
        self.num_plans += 1
        self.planned = nodes
        return True

    def prepare(self, gives_up: Callable[[], bool]) -> Any:
        if gives_up():
            raise ClusterClosedError("it was given up")
        return SimpleNamespace(nodes=tuple(sorted(self.planned)))

    def follow(self, on_change: Callable[[], None]) -> Callable[[], None]:
        raise NotImplementedError

    def settle(self) -> None:
        raise NotImplementedError


class ReplicaDouble:
    def __init__(self, stages: StagesDouble) -> None:
        self.stages: Any = stages
        self.engine = Bench().engine
        self.model: Any = SimpleNamespace(nodes=("a", "b"))
        self.states: list[ClusterState] = []
        self.refuses_switch: TbclusterError | None = None
        self.num_switches = 0
        self.failure: TbclusterError | None = None

    def pause(self) -> None:
        self.engine.pause()

    def check(self) -> None:
        pass

    def switch(self, model: Any, epoch: int) -> None:
        self.num_switches += 1
        if self.refuses_switch is not None:
            raise self.refuses_switch
        self.model = model

    def become(self, state: ClusterState, doing: str | None = None) -> None:
        self.states.append(state)

    def give_up(self, error: TbclusterError) -> None:
        self.failure = error


class Scene:
    def __init__(self, *news: News | None) -> None:
        self.stages = StagesDouble(*news)
        self.replica = ReplicaDouble(self.stages)
        self.replanner = ReplannerDouble()
        self.guard = Guard(PROMPTS[2], 0.1, lambda _: None)

    def run(self) -> None:
        book = RecoveryBook()
        Keeper(self.replica, 1, self.replanner, book, self.guard).run()


def test_a_node_that_was_drained_while_it_was_loaded_is_left() -> None:
    scene = Scene(END)
    scene.replanner.nodes = [frozenset("ac")]
    scene.run()
    assert scene.replica.model.nodes == ("a", "c")
    assert scene.replica.states[-1] is ClusterState.READY


def test_nodes_that_flicker_while_it_is_planned_are_planned_for_once_more() -> None:
    scene = Scene(NodesChanged(), END)
    left = frozenset("ac")
    # As long as it is fetched for, one is away for a moment.
    scene.replanner.nodes = [ALL, left, left, frozenset("a"), left]
    scene.run()
    assert scene.replanner.num_plans == 2
    assert scene.replica.states[-1] is ClusterState.READY
    assert scene.replica.model.nodes == ("a", "c")


@pytest.mark.parametrize("lacked_ways", [False, True])
def test_a_plan_is_made_again_for_the_same_nodes_if_they_lacked_a_way(
    lacked_ways: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SETTLE_S", 0.0)
    scene = Scene(PathLost("step 7 was lost"))
    scene.replanner.nodes = [frozenset("ab")]
    scene.replanner.lacked_ways = lacked_ways

    def plan(nodes: Nodes) -> bool:
        scene.replanner.planned, scene.replanner.lacked_ways = nodes, False
        return True

    scene.replanner.plan = plan  # type: ignore[method-assign]
    scene.run()
    assert scene.replica.num_switches == lacked_ways


def test_a_plan_that_does_not_hold_any_more_ends_no_request_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "WAIT_S", 0.0)
    scene = Scene(NodesChanged(), END)
    scene.replanner.nodes = [ALL, frozenset("ac")]
    scene.replica.refuses_switch = PlanError("another replica was placed anew meanwhile")
    told = []
    scene.replica.engine.starve = lambda error: told.append(error)  # type: ignore[method-assign]
    scene.run()
    assert scene.replica.num_switches == MAX_TRIES + 1
    (starved,) = told
    assert isinstance(starved, StarvedError)
    assert "placed anew meanwhile" in str(starved)


def test_an_examination_that_ends_in_a_recovery_is_not_waited_for_for_ever() -> None:
    lost = StageLostError("a stage was lost meanwhile")
    scene = Scene(PathLost("step 7 was lost"), Examined(lost), END)
    scene.guard.examine(scene.replica.engine)
    scene.run()
    assert scene.stages.num_reroutes == 1
    assert scene.replica.states[-1] is ClusterState.READY
    assert scene.guard.due_in(0.0) < float("inf")


def test_a_starved_model_leaves_the_nodes_that_it_may_not_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "WAIT_S", 0.0)
    scene = Scene(NodesChanged(), END)
    scene.replanner.nodes = [ALL, frozenset("a")]

    def plan(_: Nodes) -> bool:
        raise PlanError("nothing fits")

    scene.replanner.plan = plan  # type: ignore[method-assign]
    scene.run()
    assert scene.replica.states[-1] is ClusterState.STARVED
    assert scene.stages.dead == {1}


def test_a_stage_that_cannot_be_reached_is_placed_elsewhere_whatever_else_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "NO_WAY_S", -1.0)
    scene = Scene(StageExited(1, "ended", "b"), NodesChanged(), END)
    scene.stages.dead = {1}
    scene.stages.unreachable = "b"
    scene.stages.is_connected = False
    scene.run()
    assert scene.replanner.planned == frozenset("ac")


def test_who_ends_has_ended_its_stages() -> None:
    scene = Scene(END)
    scene.run()
    assert scene.stages.is_closed
    assert scene.replica.failure is not None


def test_requests_do_not_wait_for_a_rack_that_was_closed() -> None:
    scene = Scene(NodesChanged())
    scene.replanner.nodes = [frozenset("ac")]

    def prepare(_: Callable[[], bool]) -> Any:
        raise ClusterClosedError("the rack was closed")

    scene.replanner.prepare = prepare  # type: ignore[method-assign]
    told: list[TbclusterError] = []
    scene.replica.engine.close = told.append  # type: ignore[method-assign]
    scene.run()
    assert list(map(str, told)) == ["the rack was closed"]
