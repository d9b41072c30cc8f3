"""Plans for a replica whose nodes have come and gone."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.order import Order
from tbcluster.core import StageRange
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import DoesNotFitError, PlanError
from tbcluster.planner.plan import Plan, Wishes, fingerprint
from tests.doubles.planned_rack import GIB, Bench, RackDouble, node

MIB = 1 << 20
HEAD, MINI2, MINI3 = node("head"), node("mini2"), node("mini3")
BY_HAND = [[("head", StageRange(0, 4)), ("mini2", StageRange(4, 8))]]
TWICE = [*BY_HAND, [("mini3", StageRange(0, 8))]]
# With other models' memory kept out of it: KV caches that take what was promised and no more.
PROMISED = KvOptions(keeps_to_promise=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(MODEL_PATH, tmp_path_factory.mktemp("models") / "model"))


def prepared(order: Order) -> tuple[Bench, RackDouble]:
    """A model on three nodes."""
    rack = RackDouble(HEAD, MINI2, MINI3)
    bench = Bench(order, rack)
    bench.run()
    return bench, rack


def nodes_of(plan: Plan) -> list[str]:
    return [stage.node for stage in plan.replicas[0].stages]


def test_the_nodes_that_are_left_take_all_layers(model: Path) -> None:
    bench, rack = prepared(Order(model, wishes=Wishes(stages=3)))
    before = bench.preparation._placed[0].model
    rack.nodes = (HEAD, MINI3)
    plan = bench.preparation.plan_again(0, rack.usable())
    assert set(nodes_of(plan)) <= {"head", "mini3"}
    assert sum(len(range(s.layers.start, s.layers.end)) for s in plan.replicas[0].stages) == 8
    assert bench.preparation.plan != plan, "it is in force once its stages are"
    again = bench.preparation.prepare_again(0, plan)
    assert again.nodes == tuple(nodes_of(plan))
    assert again.tokenizer is before.tokenizer
    assert again.grammars is before.grammars
    bench.preparation.settle(0)
    assert bench.preparation.plan is not None
    assert bench.preparation.plan.replicas == plan.replicas


def test_only_what_a_node_lacks_is_fetched(model: Path) -> None:
    order = Order(model, by_hand=[[("head", StageRange(0, 2)), ("mini2", StageRange(2, 8))]])
    bench, rack = prepared(order)
    placed = bench.preparation._placed[0]
    same = replace(bench.preparation.plan, replicas=(placed.planned,))  # type: ignore[type-var]
    bench.preparation.prepare_again(0, same)
    assert rack.num_fetches == 1
    alone = bench.preparation.plan_again(0, [MINI2])
    served = bench.preparation.prepare_again(0, alone)
    assert (rack.num_fetches, list(rack.needs)) == (2, ["mini2"])
    assert served.sources == ("/on/mini2",)
    bench.preparation.prepare_again(0, alone)
    assert rack.num_fetches == 2


def test_other_replicas_keep_their_memory_and_their_numbers(model: Path) -> None:
    bench, _ = prepared(Order(model, by_hand=TWICE, kv=PROMISED))
    preparation = bench.preparation
    first, second = (placed.planned for placed in preparation._placed)
    plan = preparation.plan_again(1, [HEAD])
    (stage,) = plan.replicas[0].stages
    beside = first.stages[0]
    assert stage.memory_bytes == 4 * GIB - beside.used_bytes
    served = preparation.prepare_again(1, plan)
    assert (served.replica, served.first_stage) == (1, 2)
    preparation.settle(1)
    assert preparation.plan is not None
    assert preparation.plan.replicas == (first, plan.replicas[0])
    assert fingerprint(second) == "mini3=0-7"
    assert fingerprint(plan.replicas[0]) == "head=0-7"


def test_two_replicas_are_not_placed_with_the_same_memory(model: Path) -> None:
    bench, _ = prepared(Order(model, by_hand=TWICE, kv=PROMISED))
    preparation = bench.preparation
    for number in (0, 1):
        preparation.prepare_again(number, preparation.plan_again(number, [HEAD]))
    preparation.settle(1)
    before = preparation.plan
    with pytest.raises(PlanError, match="another replica was placed anew"):
        preparation.settle(0)
    assert preparation.plan == before
    preparation.prepare_again(0, preparation.plan_again(0, [HEAD]))
    preparation.settle(0)
    assert preparation.plan != before


def test_kv_memory_beyond_the_promise_is_taken_too(model: Path) -> None:
    bench, _ = prepared(Order(model, by_hand=TWICE))
    # The first replica's caches may take most of what both nodes have.
    with pytest.raises(DoesNotFitError):
        bench.preparation.plan_again(1, [node("head", 2 * GIB)])


def test_what_other_models_take_by_now_counts(model: Path) -> None:
    taken = {"mini3": 0}
    bench, _ = prepared(Order(model, wishes=Wishes(stages=1), taken_now=lambda: taken))
    assert bench.preparation.plan_again(0, [MINI3])
    taken["mini3"] = 4 * GIB
    with pytest.raises(DoesNotFitError):
        bench.preparation.plan_again(0, [MINI3])


def test_a_layout_by_hand_is_kept_while_its_nodes_are_there(model: Path) -> None:
    bench, _ = prepared(Order(model, by_hand=BY_HAND))
    kept = bench.preparation.plan_again(0, [HEAD, MINI2, MINI3])
    assert fingerprint(kept.replicas[0]) == "head=0-3 mini2=4-7"
    other = bench.preparation.plan_again(0, [HEAD, MINI3])
    assert "mini2" not in nodes_of(other)
    assert any("given by hand for mini2" in reason for reason in other.reasons)
    # Nor where it does not fit any more.
    tight = bench.preparation.plan_again(0, [HEAD, node("mini2", 8 * MIB)])
    assert nodes_of(tight) == ["head"]


@pytest.mark.parametrize(
    ("room_mib", "context", "streams", "expected"),
    [
        # The planner shortens a context that nobody asked for.
        (100, None, 20, "a shorter context"),
        (100, 1024, 20, "fewer streams"),
        (30, 1024, 20, "a shorter context"),
    ],
)
def test_less_than_was_asked_for_is_better_than_nothing(
    model: Path, room_mib: int, context: int | None, streams: int, expected: str
) -> None:
    order = Order(model, wishes=Wishes(context, streams, replicas=1), kv=PROMISED)
    bench, _ = prepared(order)
    promised = bench.preparation.plan
    assert promised is not None
    left = [node("mini2", room_mib * MIB)]
    plan = bench.preparation.plan_again(0, left)
    if expected == "fewer streams":
        assert (plan.context, plan.streams) == (promised.context, 1)
    else:
        assert plan.context < promised.context
    bench.preparation.prepare_again(0, plan)
    bench.preparation.settle(0)
    # What was promised first is tried again when there is room again.
    again = bench.preparation.plan_again(0, [HEAD, MINI2, MINI3])
    assert (again.context, again.streams) == (promised.context, promised.streams)


def test_where_nothing_fits_the_error_says_what_is_missing(model: Path) -> None:
    bench, _ = prepared(Order(model))
    with pytest.raises(DoesNotFitError) as refused:
        bench.preparation.plan_again(0, [node("mini2", 2 * MIB)])
    assert refused.value.missing_bytes > 0
    with pytest.raises(PlanError, match="no node"):
        bench.preparation.plan_again(0, [])


def test_a_node_can_be_left_out_if_the_promise_holds_without_it(model: Path) -> None:
    order = Order(model, by_hand=BY_HAND, wishes=Wishes(context=1024), kv=PROMISED)
    bench, _ = prepared(order)
    preparation = bench.preparation
    before = preparation.plan
    taken = preparation.taken_without("mini2", [HEAD, MINI2, MINI3], {})
    assert "mini2" not in taken
    assert sum(taken.values()) > 0
    with pytest.raises(DoesNotFitError):
        preparation.taken_without("mini2", [HEAD, MINI2], {"head": 4 * GIB - 40 * MIB})
    # Nobody stands on the third.
    assert preparation.taken_without("mini3", [], {}).keys() == {"head", "mini2"}
    assert preparation.plan == before


def test_one_machine_is_not_planned_again(model: Path) -> None:
    bench = Bench(Order(model))
    bench.run()
    with pytest.raises(PlanError, match="planned for a rack"):
        bench.preparation.plan_again(0, [HEAD])
