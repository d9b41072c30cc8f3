"""Stage workers that nobody uses: which are taken, and which end."""

from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.agent.free_workers import FREE_S, FreeWorkers
from tbcluster.core import StageRange
from tbcluster.wire.control import StageSpec


def spec(shard: str, model: str = "m") -> StageSpec:
    return StageSpec(0, 1, model, StageRange(0, 1), 1, "", "", shard=shard)


def test_the_oldest_of_the_same_shard_is_taken_once() -> None:
    free: FreeWorkers[str] = FreeWorkers()
    for worker, shard in (("a", "x"), ("b", "y"), ("c", "y")):
        free.add(worker, spec(shard), 0.0)
    assert free.take(spec("z")) is None
    assert free.take(spec("y", model="elsewhere")) == "b"
    assert free.take(spec("y")) == "c"
    assert free.take(spec("y")) is None
    assert len(free) == 1


def test_a_stage_without_a_shard_takes_nobody_over() -> None:
    free: FreeWorkers[str] = FreeWorkers()
    free.add("a", spec(""), 0.0)
    assert free.take(spec("")) is None


def test_those_of_the_same_model_are_obsolete() -> None:
    free: FreeWorkers[str] = FreeWorkers()
    for worker, model in (("a", "m"), ("b", "n"), ("c", "m")):
        free.add(worker, spec(worker, model), 0.0)
    assert free.take_obsolete(spec("d", "m")) == ["a", "c"]
    assert free.take_obsolete(spec("d", "m")) == []
    assert free.take_all() == ["b"]


def test_one_waits_only_while_a_coordinator_is_there() -> None:
    free: FreeWorkers[str] = FreeWorkers()
    free.add("a", spec("x"), 0.0)
    assert free.next_at() == FREE_S
    free.hold()
    free.add("b", spec("y"), 1.0)
    assert free.next_at() == float("inf")
    assert free.take_overdue(1e6) == []
    free.resume(1e6)
    assert free.next_at() == 1e6 + FREE_S
    assert free.take_overdue(free.next_at() - 0.1) == []
    assert free.take_overdue(free.next_at()) == ["a", "b"]


def test_one_that_ends_is_free_no_more() -> None:
    free: FreeWorkers[str] = FreeWorkers()
    free.add("a", spec("x"), 0.0)
    assert not free.discard("b")
    assert free.discard("a")
    assert not free.discard("a")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "take", "obsolete", "overdue", "hold", "resume", "pass"]),
            st.sampled_from(["x", "y", "z"]),
        ),
        max_size=40,
    )
)
def test_each_is_given_away_once(commands: list[tuple[str, str]]) -> None:
    free: FreeWorkers[int] = FreeWorkers()
    now, given_away, is_held = 0.0, list[int](), False
    for number, (command, shard) in enumerate(commands):
        match command:
            case "add":
                free.add(number, spec(shard, model=shard), now)
            case "take":
                taken = free.take(spec(shard))
                given_away += [] if taken is None else [taken]
            case "obsolete":
                given_away += free.take_obsolete(spec("new", model=shard))
            case "overdue":
                overdue = free.take_overdue(now)
                assert not (is_held and overdue)
                given_away += overdue
                assert free.next_at() > now
            case "hold":
                free.hold()
                is_held = True
            case "resume":
                free.resume(now)
                is_held = False
            case "pass":
                now += FREE_S / 2
    added = [number for number, (command, _) in enumerate(commands) if command == "add"]
    assert sorted([*given_away, *free.take_all()]) == added
