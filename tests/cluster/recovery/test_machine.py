"""The recovery machine under random events: it always comes back, and never with an old epoch."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.cluster.recovery.machine import (
    EXCLUDED_S,
    LOOK_AGAIN_S,
    MAX_LOOK_S,
    MAX_TRIES,
    SAME_LOSS_S,
    SETTLE_S,
    STEADY_S,
    SWITCH_PATIENCE_S,
    WAIT_S,
    Action,
    Consider,
    GiveUp,
    Mend,
    Pause,
    Phase,
    PlanAgain,
    Recovery,
    Serve,
    Starve,
    Switch,
)
from tbcluster.errors import DoesNotFitError, ParityError, StageError, StarvedError

ALL = frozenset("abcd")
ERROR = DoesNotFitError("3 GB are missing", 3, ())


def on_rack(*nodes: str) -> Recovery:
    return Recovery(frozenset(nodes), epoch=1, now=0.0)


def test_a_lost_stage_is_started_again_in_a_new_epoch() -> None:
    recovery = Recovery(None, epoch=1, now=0.0)
    assert recovery.lost(1.0, frozenset()) == [Pause(), Mend(2)]
    assert recovery.mended(2.0) == [Serve()]


def test_a_second_loss_while_it_is_mended_begins_another_epoch() -> None:
    recovery = Recovery(None, epoch=1, now=0.0)
    recovery.lost(1.0, frozenset())
    assert recovery.lost(1.5, frozenset()) == [Mend(3)]


def test_a_node_that_is_gone_is_planned_around() -> None:
    recovery = on_rack("a", "b")
    left = frozenset("ac")
    assert recovery.lost(1.0, left, node="b") == [Pause(), PlanAgain()]
    assert recovery.prepared(2.0, left) == [Switch(2)]
    assert recovery.mended(3.0) == [Serve()]


def test_a_node_that_comes_back_before_the_new_plan_is_loaded_keeps_the_old_one() -> None:
    recovery = on_rack("a", "b")
    recovery.lost(1.0, frozenset("a"), node="b")
    assert recovery.nodes_changed(2.0, frozenset("ab")) == [Mend(2)]


def test_a_drained_node_is_left_while_requests_run() -> None:
    recovery = on_rack("a", "b")
    assert recovery.nodes_changed(1.0, frozenset("ac")) == [Pause(), PlanAgain()]


def test_too_few_nodes_starve_the_model_until_more_are_there() -> None:
    recovery = on_rack("a", "b")
    recovery.lost(1.0, frozenset("a"), node="b")
    (starve,) = recovery.no_room(1.0 + WAIT_S, ERROR)
    assert isinstance(starve, Starve)
    assert isinstance(starve.error, StarvedError)
    assert "3 GB are missing" in str(starve.error)
    assert recovery.nodes_changed(19.0, frozenset("ac")) == [PlanAgain()]
    (again,) = recovery.no_room(19.5, ERROR)
    assert isinstance(again, Starve)
    assert recovery.nodes_changed(20.0, frozenset("ab")) == [Mend(2)]
    assert recovery.mended(21.0)[0] == Serve()


def test_what_fits_nowhere_waits_a_moment_for_a_node_that_is_started_again() -> None:
    recovery = on_rack("a", "b")
    recovery.lost(1.0, frozenset("a"), node="b")
    assert recovery.no_room(1.5, ERROR) == []
    assert recovery.wants_ticks
    assert recovery.ticked(1.0 + WAIT_S / 2, frozenset("a"), is_idle=False) == []
    assert recovery.nodes_changed(7.0, frozenset("ab")) == [Mend(2)]


def test_what_has_waited_long_enough_starves() -> None:
    recovery = on_rack("a", "b")
    recovery.lost(1.0, frozenset("a"), node="b")
    recovery.no_room(1.5, ERROR)
    (starve,) = recovery.ticked(1.0 + WAIT_S, frozenset("a"), is_idle=False)
    assert isinstance(starve, Starve)
    assert "3 GB are missing" in str(starve.error)


def test_stages_that_end_while_it_is_starved_are_no_failed_tries() -> None:
    recovery = on_rack("a", "b")
    recovery.nodes_changed(1.0, frozenset("a"))
    for _ in range(2 * MAX_TRIES):
        recovery.no_room(2.0, ERROR)
        assert recovery.lost(3.0, frozenset("a"), node="b") == [PlanAgain()]
    recovery.no_room(4.0, ERROR)
    assert recovery.nodes_changed(5.0, frozenset("ab")) == [Mend(2)]


def test_a_starved_model_looks_again_by_itself() -> None:
    recovery = on_rack("a", "b")
    recovery.lost(1.0, frozenset("a"), node="b")
    starved_at = 1.0 + WAIT_S
    recovery.no_room(starved_at, ERROR)
    assert recovery.wants_ticks
    soon, late = starved_at + LOOK_AGAIN_S / 2, starved_at + LOOK_AGAIN_S
    assert recovery.ticked(soon, frozenset("a"), is_idle=True) == []
    assert recovery.ticked(late, frozenset("a"), is_idle=True) == [PlanAgain()]


def test_a_better_plan_waits_until_nobody_would_notice() -> None:
    recovery = on_rack("a", "b")
    assert recovery.nodes_changed(1.0, frozenset("abc")) == []
    assert recovery.ticked(1.5, frozenset("abc"), is_idle=True) == []
    known = 1.0 + SETTLE_S
    assert recovery.ticked(known, frozenset("abc"), is_idle=False) == [Consider()]
    recovery.is_better(2.0, frozenset("abc"))
    assert recovery.ticked(3.0, frozenset("abc"), is_idle=False) == []
    assert recovery.ticked(4.0, frozenset("abc"), is_idle=True) == [Pause(), Switch(2)]


def test_nodes_that_are_not_measured_yet_are_looked_at_later() -> None:
    recovery = on_rack("a", "b")
    recovery.nodes_changed(1.0, ALL)
    assert recovery.ticked(1.0 + SETTLE_S, ALL, is_idle=True) == [Consider()]
    recovery.is_unsettled(5.0)
    assert recovery.wants_ticks
    assert recovery.ticked(5.1, ALL, is_idle=True) == []
    assert recovery.ticked(5.0 + SETTLE_S, ALL, is_idle=True) == [Consider()]
    assert not recovery.wants_ticks


def test_what_is_no_better_now_is_looked_at_again_ever_more_rarely() -> None:
    """Not all ways to a node that came may answer yet."""
    recovery = on_rack("a", "b")
    recovery.nodes_changed(0.0, ALL)
    now = SETTLE_S
    assert recovery.ticked(now, ALL, is_idle=True) == [Consider()]
    for pause_s in (2 * SETTLE_S, 4 * SETTLE_S, 8 * SETTLE_S):
        recovery.is_no_better(now)
        now += pause_s
        assert recovery.ticked(now - 0.1, ALL, is_idle=True) == []
        assert recovery.ticked(now, ALL, is_idle=True) == [Consider()]
    for _ in range(20):
        recovery.is_no_better(now)
        now += MAX_LOOK_S
        assert recovery.ticked(now, ALL, is_idle=True) == [Consider()]


def test_a_better_plan_does_not_wait_for_ever() -> None:
    recovery = on_rack("a", "b")
    recovery.is_better(2.0, frozenset("abc"))
    late = 2.0 + SWITCH_PATIENCE_S
    assert recovery.ticked(late, frozenset("abc"), is_idle=False) == [Pause(), Switch(2)]


def test_a_better_plan_is_forgotten_when_nodes_change() -> None:
    recovery = on_rack("a", "b")
    recovery.is_better(2.0, frozenset("abc"))
    assert recovery.nodes_changed(3.0, frozenset("ab")) == []
    assert Switch not in map(type, recovery.ticked(9.0, frozenset("ab"), is_idle=True))


def test_a_better_plan_is_forgotten_when_a_stage_is_lost() -> None:
    recovery = on_rack("a", "b")
    recovery.is_better(2.0, frozenset("abc"))
    recovery.lost(3.0, frozenset("abc"), node="a")
    recovery.mended(3.5)
    assert Switch not in map(type, recovery.ticked(9.0, frozenset("abc"), is_idle=True))


def test_what_dies_at_once_each_time_is_given_up() -> None:
    recovery = Recovery(None, epoch=1, now=0.0)
    for attempt in range(MAX_TRIES):
        assert isinstance(recovery.lost(attempt * 0.1, frozenset())[-1], Mend)
    (given_up,) = recovery.lost(1.0, frozenset(), what="stage 1 was killed by signal 9")
    assert isinstance(given_up, GiveUp)
    assert "stage 1 was killed by signal 9 again and again" in str(given_up.error)
    assert recovery.lost(2.0, frozenset()) == []


@pytest.mark.parametrize(("served_s", "answers"), [(STEADY_S, False), (0.1, True)])
def test_what_has_served_meanwhile_is_never_given_up(served_s: float, answers: bool) -> None:
    recovery, now = Recovery(None, epoch=1, now=0.0), 0.0
    for _ in range(5 * MAX_TRIES):
        assert isinstance(recovery.lost(now, frozenset(), has_answered=answers)[-1], Mend)
        recovery.mended(now)
        now += served_s


def test_a_way_that_is_lost_again_and_again_ends_in_new_workers() -> None:
    recovery = Recovery(None, epoch=1, now=0.0)
    mends = [recovery.lost(SAME_LOSS_S * n, frozenset(), is_way=True)[-1] for n in range(4)]
    assert [mend.restarts_all for mend in mends if isinstance(mend, Mend)] == [
        False,
        False,
        True,
        True,
    ]


def test_ways_that_are_lost_one_after_the_other_are_one_loss() -> None:
    recovery = on_rack("a", "b")
    for number in range(4 * MAX_TRIES):
        assert isinstance(recovery.lost(0.1 * number, ALL, is_way=True)[-1], Mend)


def test_a_node_where_a_stage_cannot_live_is_left_out_for_a_while() -> None:
    recovery = on_rack("a", "b")
    for attempt in range(MAX_TRIES):
        recovery.lost(attempt * 0.1, ALL, node="b")
    assert recovery.lost(1.0, ALL, node="b") == [PlanAgain()]
    assert recovery.usable(1.0, ALL) == frozenset("acd")
    assert recovery.usable(1.0 + EXCLUDED_S, ALL) == ALL


def test_a_stage_that_cannot_be_loaded_goes_elsewhere() -> None:
    recovery = on_rack("a", "b")
    recovery.lost(1.0, ALL, node="b")
    assert recovery.broke(2.0, ALL, StageError("no memory"), "b") == [PlanAgain()]


def test_wrong_output_of_all_stages_is_the_end() -> None:
    recovery = on_rack("a", "b")
    recovery.lost(1.0, ALL, node="b")
    error = ParityError("it differs")
    assert recovery.broke(2.0, ALL, error) == [GiveUp(error)]
    assert recovery.nodes_changed(3.0, frozenset("abd")) == []


class World:
    """Nodes that come and go, and a keeper that does what it is told, which may fail.

    Attributes:
        serving_epoch: Of the stages that answer; None while requests are paused.
    """

    def __init__(self, data: st.DataObject, needs: int) -> None:
        self.data, self.needs = data, needs
        self.usable = ALL
        self.now = 0.0
        self.recovery = Recovery(frozenset("ab"), epoch=1, now=0.0)
        self.plan = frozenset("ab")
        self.prepared = frozenset[str]()
        self.serving_epoch: int | None = 1
        self.epochs = [1]
        self.num_faults = data.draw(st.integers(0, 12))

    def fault(self) -> str | None:
        """What goes wrong at this moment, as long as anything does."""
        self.now += self.data.draw(st.sampled_from([0.01, 1.0, 40.0]))
        if self.num_faults == 0:
            return None
        self.num_faults -= 1
        kind = self.data.draw(st.sampled_from(["stage", "way", "nodes", "broken", "nothing"]))
        if kind == "nodes":
            # The head node is always there: whoever decides is on it.
            self.usable = frozenset("a") | self.data.draw(st.frozensets(st.sampled_from("bcd")))
        return kind

    def happens(self, kind: str | None) -> list[Action] | None:
        """What the machine says to it; None if nothing happened."""
        node = self.data.draw(st.sampled_from(sorted(self.plan)))
        match kind:
            case "stage":
                return self.recovery.lost(self.now, self.usable, node=node)
            case "way":
                return self.recovery.lost(self.now, self.usable, is_way=True, has_answered=True)
            case "broken" if self.recovery.phase is not Phase.SERVING:
                return self.recovery.broke(self.now, self.usable, StageError("no"), node)
            case "nodes":
                return self.recovery.nodes_changed(self.now, self.usable)
        return None

    def perform(self, actions: list[Action]) -> None:
        """Do it, and what follows from it, until nothing does."""
        left = list(actions)
        for _ in range(400):
            if not left:
                return
            action, *left = left
            left += self.do(action)
        raise AssertionError("it never comes to rest")

    def do(self, action: Action) -> list[Action]:
        match action:
            case Pause():
                assert self.serving_epoch is not None, "requests were paused twice"
                self.serving_epoch = None
            case Mend(epoch=epoch):
                return self.begin(epoch, self.plan)
            case Switch(epoch=epoch):
                if self.data.draw(st.booleans()) and self.num_faults:
                    self.num_faults -= 1
                    return self.recovery.switch_failed(
                        self.now, self.usable, self.plan, StageError("no")
                    )
                return self.begin(epoch, self.prepared)
            case PlanAgain():
                assert self.serving_epoch is None
                happened = self.happens("nodes" if self.fault() == "nodes" else None)
                if happened is not None:
                    return happened
                there = self.recovery.usable(self.now, self.usable)
                if len(there) < self.needs:
                    return self.recovery.no_room(self.now, ERROR)
                chosen = frozenset(sorted(there)[: self.needs])
                if chosen == self.plan:
                    return self.recovery.fits_already(self.now)
                self.prepared = chosen
                return self.recovery.prepared(self.now, chosen)
            case Serve():
                assert self.serving_epoch is None, "requests go on that were not paused"
                self.serving_epoch = self.epochs[-1]
            case Consider():
                if self.data.draw(st.booleans()):
                    return self.recovery.is_unsettled(self.now)
                there = self.recovery.usable(self.now, self.usable)
                if self.data.draw(st.booleans()) and len(there) >= self.needs:
                    self.prepared = frozenset(sorted(there)[-self.needs :])
                    return self.recovery.is_better(self.now, self.prepared)
                return self.recovery.is_no_better(self.now)
            case Starve():
                assert self.serving_epoch is None
            case GiveUp():
                raise AssertionError("a rack with nodes is never given up for a lost stage")
        return []

    def begin(self, epoch: int, nodes: frozenset[str]) -> list[Action]:
        assert self.serving_epoch is None, "an epoch begins while requests run"
        assert epoch > self.epochs[-1], "an epoch has two owners"
        self.epochs.append(epoch)
        self.plan = nodes
        happened = self.happens(self.fault())
        if happened:
            return happened
        if nodes <= self.usable:
            return self.recovery.mended(self.now)
        # A stage whose node is gone does not come up: that is heard of, too.
        return self.recovery.nodes_changed(self.now, self.usable)


@settings(max_examples=300)
@given(st.data(), st.integers(1, 3))
def test_it_comes_back_whatever_happens(data: st.DataObject, needs: int) -> None:
    world = World(data, needs)
    while world.num_faults:
        happened = world.happens(world.fault())
        if happened is not None:
            world.perform(happened)
        is_idle = data.draw(st.booleans())
        world.perform(world.recovery.ticked(world.now, world.usable, is_idle=is_idle))
    # Nothing goes wrong any more, all nodes are there, and whoever was left out is tried again.
    world.usable, world.now = ALL, world.now + EXCLUDED_S + LOOK_AGAIN_S
    world.perform(world.recovery.nodes_changed(world.now, ALL))
    world.perform(world.recovery.ticked(world.now, ALL, is_idle=True))
    assert world.recovery.phase is Phase.SERVING
    assert world.serving_epoch == world.epochs[-1] == world.recovery.epoch
    assert world.plan <= ALL
    assert world.epochs == sorted(set(world.epochs))


@settings(max_examples=100)
@given(st.data())
def test_one_machine_comes_back_or_says_why_not(data: st.DataObject) -> None:
    recovery, now, epochs = Recovery(None, 1, 0.0), 0.0, [1]
    for _ in range(data.draw(st.integers(1, 30))):
        now += data.draw(st.sampled_from([0.01, 1.0, 10.0]))
        actions = recovery.lost(now, frozenset(), has_answered=data.draw(st.booleans()))
        if isinstance(actions[-1], GiveUp):
            assert recovery.phase is Phase.FAILED
            return
        assert isinstance(actions[-1], Mend)
        epochs.append(actions[-1].epoch)
        if data.draw(st.booleans()):
            assert recovery.mended(now) == [Serve()]
    assert epochs == sorted(set(epochs))
