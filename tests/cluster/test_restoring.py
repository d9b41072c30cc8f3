"""A model that a coordinator before this one had prepared."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.cluster import usable_nodes
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.order import Order
from tbcluster.cluster.parity_check import ReferenceCheck, parity_check
from tbcluster.cluster.prepared import Prepared
from tbcluster.cluster.saved_preparation import SavedPreparation
from tbcluster.cluster.usable_nodes import await_usable
from tbcluster.core import StageRange
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import ClusterClosedError
from tbcluster.planner.plan import Wishes
from tbcluster.wire.control import Reference
from tests.doubles.planned_rack import GIB, Bench, RackDouble, node

REFERENCE = Reference((1, 2, 3, 4), (-1.0,) * 4, (1.0,) * 4)
BY_HAND = [[("head", StageRange(0, 4)), ("mini2", StageRange(4, 8))]]
MIB = 1 << 20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_PATH, tmp_path / "model"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usable_nodes, "PLAN_PATIENCE_S", 0.1)


def saved_of(order: Order, rack: RackDouble | None = None) -> tuple[Prepared, SavedPreparation]:
    """What the coordinator before leaves."""
    bench = Bench(order, rack or RackDouble())
    prepared = bench.run()
    saved = bench.preparation.to_save(REFERENCE)
    assert saved is not None
    return prepared, saved


@pytest.mark.parametrize("by_hand", [(), BY_HAND])
def test_nothing_is_planned_measured_or_fetched_again(model: Path, by_hand: object) -> None:
    order = Order(model, by_hand=by_hand, wishes=Wishes(streams=2))  # type: ignore[arg-type]
    before, saved = saved_of(order)
    rack = RackDouble()
    bench = Bench(replace(order, saved=saved), rack)
    after = bench.run()
    assert after.plan == before.plan
    assert bench.plans == [before.plan]
    assert after.replicas[0].sources == before.replicas[0].sources
    assert after.replicas[0].shards == before.replicas[0].shards
    assert after.replicas[0].kv_budgets == before.replicas[0].kv_budgets
    assert (rack.awaited, rack.num_measured, rack.num_fetches) == (None, 0, 0)
    assert bench.preparation.is_restored
    assert bench.preparation.to_save(REFERENCE) == saved


def test_what_the_unsharded_model_said_is_not_computed_again(model: Path) -> None:
    _, saved = saved_of(Order(model))
    prepared = Bench(Order(model, saved=saved), RackDouble()).run()
    assert prepared.reference == REFERENCE
    check = parity_check(prepared, lambda _: None)
    assert isinstance(check, ReferenceCheck)
    assert check._source is REFERENCE
    check.close()


def test_the_bundled_model_is_restored_too() -> None:
    _, saved = saved_of(Order(by_hand=BY_HAND))
    bench = Bench(Order(by_hand=BY_HAND, saved=saved), RackDouble())
    assert bench.run().replicas[0].sources == ("", "")
    assert bench.preparation.is_restored


@pytest.mark.parametrize(
    ("other", "knows"),
    [
        (Order(wishes=Wishes(streams=3)), True),
        (Order(wishes=Wishes(context=512)), True),
        (Order(by_hand=[[("mini2", StageRange(0, 8))]]), True),
        (Order(kv=KvOptions(memory_bytes=1 << 24)), True),
        (Order(kv=KvOptions(bits=8)), False),
    ],
)
def test_another_order_is_planned_anew(model: Path, other: Order, knows: bool) -> None:
    """What the unsharded model said holds, where its caches are the same."""
    _, saved = saved_of(Order(model))
    rack = RackDouble()
    bench = Bench(replace(other, source=model, saved=saved), rack)
    prepared = bench.run()
    assert not bench.preparation.is_restored
    assert rack.awaited is not None
    assert prepared.reference == (REFERENCE if knows else None)


def test_weights_that_were_written_anew_are_another_model(model: Path) -> None:
    _, saved = saved_of(Order(model))
    os.utime(model / "model.safetensors", ns=(1, 1))
    bench = Bench(Order(model, saved=saved), RackDouble())
    assert bench.run().reference is None
    assert not bench.preparation.is_restored


def test_a_node_that_was_drained_meanwhile_is_not_waited_for() -> None:
    rack = RackDouble(node("head"))
    with pytest.raises(ClusterClosedError):
        await_usable(rack, ("head", "mini2"), lambda: True)  # type: ignore[arg-type]
    drained = replace(node("mini2"), is_drained=True)
    seen = replace(rack.view(), nodes=(*rack.nodes, drained))
    rack.view = lambda: seen  # type: ignore[method-assign]
    usable = await_usable(rack, ("head", "mini2"), lambda: True)  # type: ignore[arg-type]
    assert usable == rack.nodes


def test_a_node_that_does_not_come_back_is_done_without(model: Path) -> None:
    _, saved = saved_of(Order(model, wishes=Wishes(stages=2)))
    rack = RackDouble(node("head"), node("mini3"))
    bench = Bench(Order(model, wishes=Wishes(stages=2), saved=saved), rack)
    prepared = bench.run()
    nodes = {stage.node for stage in prepared.plan.replicas[0].stages}
    assert nodes == {"head", "mini3"}
    assert rack.awaited is None
    assert prepared.reference == REFERENCE
    assert "mini2 did not come back: model is planned for the other nodes" in bench.notes
    assert not bench.preparation.is_restored


def test_layers_given_by_hand_to_a_node_that_is_gone_are_placed_anew(model: Path) -> None:
    order = Order(model, by_hand=BY_HAND)
    _, saved = saved_of(order)
    bench = Bench(replace(order, saved=saved), RackDouble(node("head")))
    plan = bench.run().plan
    assert {stage.node for stage in plan.replicas[0].stages} == {"head"}
    assert any("given to it by hand" in note for note in bench.notes)


def test_where_the_others_have_no_room_nodes_are_waited_for(model: Path) -> None:
    _, saved = saved_of(Order(model, wishes=Wishes(stages=2)))
    rack = RackDouble(node("head", MIB))
    bench = Bench(Order(model, wishes=Wishes(stages=2), saved=saved), rack)
    bench.is_over = False

    def came(*_: object) -> list[object]:
        rack.nodes = (node("head"), node("mini2"))
        return list(rack.nodes)

    rack.await_nodes = came  # type: ignore[assignment,method-assign]
    assert len(bench.run().plan.replicas[0].stages) == 2
    assert any("waiting for mini2" in note for note in bench.notes)


def test_memory_that_others_hold_by_now_asks_for_another_plan(model: Path) -> None:
    _, saved = saved_of(Order(model, wishes=Wishes(stages=1)))
    (stage,) = saved.plan.replicas[0].stages
    taken = {stage.node: 4 * GIB - MIB}
    order = Order(model, wishes=Wishes(stages=1), saved=saved, taken_bytes=taken)
    bench = Bench(order, RackDouble())
    (other,) = bench.run().plan.replicas[0].stages
    assert other.node != stage.node
    assert not bench.preparation.is_restored


def test_whoever_gives_up_waits_no_longer(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usable_nodes, "PLAN_PATIENCE_S", 60.0)
    _, saved = saved_of(Order(model, wishes=Wishes(stages=2)))
    bench = Bench(Order(model, wishes=Wishes(stages=2), saved=saved), RackDouble(node("head")))
    bench.is_over = True
    with pytest.raises(ClusterClosedError):
        bench.run()


def test_one_machine_has_nothing_to_save(model: Path) -> None:
    bench = Bench(Order(model))
    bench.run()
    assert bench.preparation.to_save(None) is None
