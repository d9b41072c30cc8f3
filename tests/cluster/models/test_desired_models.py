"""Models served because a coordinator before this one did, and nodes that they can do without."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tbcluster.cluster.desired import DesiredModels
from tbcluster.cluster.models.catalogue import Catalogue, Loadable
from tbcluster.cluster.models.models import Models
from tbcluster.cluster.models.residency import Rules
from tbcluster.errors import ClusterClosedError, ModelError, StageError
from tbcluster.machine import NodeState, NodeView
from tests.doubles.clusters import ScriptedMachine
from tests.doubles.waiting import wait_until

GIB = 2**30
SIZES = dict.fromkeys(("a", "b", "late", "later"), GIB)
SOON_S = 10.0


class Coordinator:
    """One after another over the same folder; `a` and `b` are named, the others can be loaded."""

    def __init__(self, folder: Path, *, rules: Rules | None = None, waits: bool = False) -> None:
        self.notes: list[str] = []
        self.machine = ScriptedMachine(5 * GIB, SIZES, waits=waits)
        self.others = [Loadable(name, name) for name in ("late", "later")]
        given = tuple(Loadable(name, name) for name in "ab")
        self.desired = DesiredModels(folder, [one.name for one in given], self.notes.append)
        self.models = Models(
            Catalogue(given, held=(lambda: self.others,)),
            self.machine,
            rules,
            on_note=self.notes.append,
            desired=self.desired,
        )

    @contextmanager
    def running(self) -> Iterator["Coordinator"]:
        """Loads what is wanted, as `tbcluster serve` does. Its end is that of a process: it says
        nothing more."""
        with self.models.start():
            self.load(*self.models.wanted())
            yield self

    def load(self, *names: str, makes_room: bool = False) -> None:
        for name in names:
            self.models.ask(name, makes_room=makes_room).result(SOON_S)


def test_what_was_loaded_at_run_time_comes_back_and_what_was_unloaded_does_not(
    tmp_path: Path,
) -> None:
    with Coordinator(tmp_path).running() as before:
        before.load("late", "later")
        before.models.unload("later").result(SOON_S)
        before.models.unload("b").result(SOON_S)
    with Coordinator(tmp_path).running() as after:
        assert after.machine.order == ["a", "late"]
        saved = [made.saved for made in after.machine.made]
        assert [one.identity for one in saved if one is not None] == ["a", "late"]
        after.load("b")
    assert Coordinator(tmp_path).models.wanted() == ["a", "b", "late"]


def test_an_unloading_that_a_rule_asked_for_holds_for_no_one_else(tmp_path: Path) -> None:
    with Coordinator(tmp_path, rules=Rules(max_loaded=2)).running() as before:
        before.load("late", makes_room=True)
        assert set(before.models.clusters()) == {"b", "late"}
    assert Coordinator(tmp_path).models.wanted() == ["a", "b", "late"]
    assert Coordinator(tmp_path).desired.names == ("b", "late")


def test_a_model_that_is_nowhere_any_more_is_forgotten(tmp_path: Path) -> None:
    with Coordinator(tmp_path).running() as before:
        before.load("late")
    after = Coordinator(tmp_path)
    after.others.clear()
    assert after.models.wanted() == ["a", "b"]
    assert after.desired.names == ("a", "b")


def test_what_cannot_be_loaded_as_it_was_is_planned_anew(tmp_path: Path) -> None:
    with Coordinator(tmp_path).running():
        pass
    again = Coordinator(tmp_path)
    again.machine.moved.add("a")
    with again.running() as after:
        assert [made.saved is None for made in after.machine.made] == [False, True, False]
        assert set(after.models.clusters()) == {"a", "b"}
        (note,) = [note for note in after.notes if "as it was" in note]
        assert "mini1: no such folder" in note


def test_what_a_coordinator_that_leaves_cannot_load_is_left_to_the_next_one(tmp_path: Path) -> None:
    with Coordinator(tmp_path).running():
        pass
    leaving = Coordinator(tmp_path)
    leaving.machine.moved.add("a")
    leaving.desired.seal()
    with leaving.models.start(), pytest.raises(StageError):
        leaving.load("a")
    assert len(leaving.machine.made) == 1
    assert Coordinator(tmp_path).desired.saved("a") is not None


def test_what_fails_otherwise_fails_once(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.machine.broken["a"] = ModelError("it is broken")
    with coordinator.models.start():
        with pytest.raises(ModelError, match="it is broken"):
            coordinator.load("a")
        assert coordinator.machine.order == ["a"]
    assert coordinator.desired.names == ()


def test_a_load_that_is_given_up_is_not_wanted(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, waits=True)
    with coordinator.models.start():
        asked = coordinator.models.ask("a")
        wait_until(lambda: coordinator.machine.starting == ["a"], "it is being loaded")
        ended = coordinator.models.unload("a")
        coordinator.machine.newest("a").may_start.set()
        ended.result(SOON_S)
        with pytest.raises(ClusterClosedError):
            asked.result(SOON_S)
    assert Coordinator(tmp_path).models.wanted() == ["b"]


def test_what_a_recovery_changes_is_kept_and_counted(tmp_path: Path) -> None:
    with Coordinator(tmp_path).running() as coordinator:
        cluster = coordinator.machine.newest("a")
        cluster.replan(2 * GIB)
        saved = coordinator.desired.saved("a")
        assert saved is not None
        assert saved.plan == cluster.plan
        assert coordinator.machine.newest("b").taken_now() == {"mini1": 2 * GIB}
        assert cluster.taken_now() == {"mini1": GIB}
    after = Coordinator(tmp_path).desired.saved("a")
    assert after == saved


def test_nodes_that_all_models_can_do_without(tmp_path: Path) -> None:
    with Coordinator(tmp_path).running() as coordinator:
        usable = [NodeView(name, name, NodeState.ONLINE) for name in ("mini1", "mini2")]
        assert coordinator.models.may_lose("mini2", usable) is None
        assert coordinator.models.may_lose("mini1", usable) is None
        # Each fits there alone, but not both.
        coordinator.machine.memory_bytes = GIB
        assert coordinator.models.may_lose("mini1", usable) == (
            "b would not fit without mini1: mini2 has 0 bytes"
        )
