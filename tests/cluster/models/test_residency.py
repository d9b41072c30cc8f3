"""Which models are loaded, wait, and have to go: rules, without a model."""

from math import inf

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tbcluster.cluster.models.residency import ModelState, Residency, Rules

ONE_GIB = 2**30
NAMES = ("a", "b", "c", "d")


def loaded(*names: str, rules: Rules | None = None) -> Residency:
    """A residency in which these were loaded one second after the other, from 0."""
    residency = Residency(rules or Rules())
    for now, name in enumerate(names):
        residency.ask(name, makes_room=False)
        residency.begin(name)
        residency.end(name, float(now), {"mini1": ONE_GIB})
    return residency


def ways(residency: Residency, *, makes_room: bool) -> list[tuple[str, ...]]:
    residency.ask("new", makes_room=makes_room)
    residency.begin("new")
    return residency.ways()


def test_a_model_is_loaded_after_those_that_were_asked_for_before() -> None:
    residency = Residency()
    for name in ("a", "b", "a"):
        residency.ask(name, makes_room=False)
    assert residency.next_load() == "a"
    residency.begin("a")
    assert residency.loading == "a"
    assert residency.next_load() is None
    assert residency.state("b") is ModelState.LOADING
    residency.end("a", 0.0, None)
    assert residency.state("a") is ModelState.UNLOADED
    assert residency.next_load() == "b"


def test_nothing_is_loaded_while_a_model_leaves() -> None:
    residency = loaded("a")
    residency.leave("a")
    residency.ask("b", makes_room=False)
    assert residency.next_load() is None
    assert residency.taken() == {"mini1": ONE_GIB}
    residency.left("a")
    assert residency.next_load() == "b"
    assert residency.taken() == {}


def test_one_that_leaves_and_is_wanted_is_loaded_again() -> None:
    residency = loaded("a")
    residency.leave("a")
    residency.ask("a", makes_room=False)
    assert residency.state("a") is ModelState.UNLOADING
    assert not residency.use("a")
    residency.left("a")
    assert residency.next_load() == "a"


def test_idle_models_make_room_the_one_not_used_for_longest_first() -> None:
    residency = loaded("a", "b", "c")
    residency.use("a")
    residency.end_use("a", 10.0)
    residency.use("c")
    assert ways(residency, makes_room=True) == [(), ("b",), ("b", "a")]


def test_a_busy_model_may_get_out_of_the_way_and_an_idle_one_is_out_of_it() -> None:
    residency = loaded("a", rules=Rules(max_loaded=1))
    residency.use("a")
    assert ways(residency, makes_room=True) == []
    assert residency.may_get_room()
    residency.end_use("a", 1.0)
    assert residency.ways() == [("a",)]
    assert not residency.may_get_room()


def test_without_leave_nothing_goes() -> None:
    assert ways(loaded("a", "b"), makes_room=False) == [()]


@pytest.mark.parametrize(
    ("makes_room", "expected"), [(True, [("a",), ("a", "b")]), (False, [])], ids=["may", "may not"]
)
def test_too_many_models(makes_room: bool, expected: list[tuple[str, ...]]) -> None:
    residency = loaded("a", "b", rules=Rules(max_loaded=2))
    assert ways(residency, makes_room=makes_room) == expected


def test_memory_is_counted_by_node_without_those_that_go() -> None:
    residency = loaded("a", "b")
    assert residency.taken() == {"mini1": 2 * ONE_GIB}
    assert residency.taken(without=("a",)) == {"mini1": ONE_GIB}


def test_a_model_that_leaves_will_make_room_whoever_asked() -> None:
    residency = loaded("a", rules=Rules(max_loaded=1))
    assert ways(residency, makes_room=False) == []
    assert not residency.may_get_room()
    before = residency.in_the_way()
    residency.leave("a")
    assert residency.may_get_room()
    residency.left("a")
    assert residency.in_the_way() != before
    assert residency.ways() == [()]


def test_a_load_that_was_given_up_may_be_wanted_again() -> None:
    residency = Residency()
    residency.ask("a", makes_room=False)
    residency.begin("a")
    assert residency.stop()
    assert not residency.stop()
    assert residency.state("a") is ModelState.UNLOADING
    residency.ask("a", makes_room=False)
    assert residency.next_load() is None
    residency.end("a", 0.0, None)
    assert residency.next_load() == "a"
    residency.begin("a")
    assert residency.state("a") is ModelState.LOADING
    assert not residency.is_stopped


def test_who_waits_can_be_withdrawn() -> None:
    residency = Residency()
    residency.ask("a", makes_room=False)
    assert residency.withdraw("a")
    assert not residency.withdraw("a")
    assert residency.next_load() is None


def test_an_idle_model_expires_and_a_busy_one_does_not() -> None:
    residency = loaded("a", "b", rules=Rules(idle_unload_s=5.0))
    residency.use("b")
    assert residency.next_expiry() == 5.0
    assert residency.expired(4.9) == []
    assert residency.expired(100.0) == ["a"]
    residency.end_use("b", 100.0)
    assert residency.expires_at("b") == 105.0


@pytest.mark.parametrize(
    ("keep_s", "expires_at"), [(0.0, 0.0), (2.0, 2.0), (inf, None)], ids=["at once", "2 s", "never"]
)
def test_a_request_decides_how_long_its_model_stays(
    keep_s: float, expires_at: float | None
) -> None:
    residency = loaded("a", rules=Rules(idle_unload_s=5.0))
    residency.keep("a", keep_s)
    assert residency.expires_at("a") == expires_at
    assert residency.expired(1.0) == (["a"] if keep_s == 0 else [])


def test_without_rules_models_stay() -> None:
    residency = loaded("a")
    assert residency.next_expiry() is None
    assert residency.expired(inf) == []


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.residency = Residency(Rules(loads_on_use=True, max_loaded=2, idle_unload_s=3.0))
        self.now = 0.0
        self.going: tuple[str, ...] = ()
        self.uses: list[str] = []

    @rule(name=st.sampled_from(NAMES), makes_room=st.booleans())
    def ask(self, name: str, makes_room: bool) -> None:
        self.residency.ask(name, makes_room=makes_room)
        assert self.residency.state(name) is not ModelState.UNLOADED

    @precondition(lambda self: self.residency.next_load() is not None)
    @rule(which=st.integers(0, 5))
    def begin(self, which: int) -> None:
        name = self.residency.next_load()
        assert name is not None
        self.residency.begin(name)
        found = self.residency.ways()
        for victims in found:
            assert not set(victims) & set(self.uses)
        if found:
            self.going = found[which % len(found)]
            for victim in self.going:
                assert self.residency.leave(victim)
                self.residency.left(victim)
        else:
            self.residency.end(name, self.now, None)

    @precondition(lambda self: self.residency.loading is not None)
    @rule()
    def stop(self) -> None:
        self.residency.stop()
        assert self.residency.is_stopped

    @precondition(lambda self: self.residency.loading is not None)
    @rule(works=st.booleans())
    def end(self, works: bool) -> None:
        name = self.residency.loading
        assert name is not None
        works = works and not self.residency.is_stopped
        self.residency.end(name, self.now, {"mini1": 1} if works else None)

    @rule(name=st.sampled_from(NAMES))
    def use(self, name: str) -> None:
        is_loaded = self.residency.state(name) is ModelState.LOADED
        assert self.residency.use(name) is is_loaded
        self.uses += [name] if is_loaded else []

    @precondition(lambda self: self.uses)
    @rule()
    def end_use(self) -> None:
        self.residency.end_use(self.uses.pop(), self.now)

    @rule(step=st.floats(0, 5))
    def time_passes(self, step: float) -> None:
        self.now += step
        for name in self.residency.expired(self.now):
            assert name not in self.uses
            assert self.residency.leave(name)

    @rule(name=st.sampled_from(NAMES))
    def left(self, name: str) -> None:
        if self.residency.state(name) is ModelState.UNLOADING:
            self.residency.left(name)

    @invariant()
    def one_at_a_time_and_no_more_than_allowed(self) -> None:
        states = [self.residency.state(name) for name in NAMES]
        assert len(self.residency.loaded) <= 2
        assert sum(self.residency.taken().values()) == len(self.residency.loaded)
        if self.residency.loading is not None or ModelState.UNLOADING in states:
            assert self.residency.next_load() is None
        assert all(self.residency.state(name) is ModelState.LOADED for name in self.uses)


TestAnyHistory = AnyHistory.TestCase
