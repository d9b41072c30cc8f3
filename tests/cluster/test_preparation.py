"""What precedes loading: opening, planning, showing, fetching."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.opening import THIS_MACHINE
from tbcluster.cluster.order import Order
from tbcluster.cluster.parity_check import (
    ConsistencyCheck,
    NoCheck,
    ReferenceCheck,
    parity_check,
)
from tbcluster.cluster.rack.fetching import FetchStatus
from tbcluster.cluster.stage_status import StageState
from tbcluster.cluster.status import fetching, planned_stages
from tbcluster.core import StageRange
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import ClusterClosedError, DoesNotFitError, PlanError
from tbcluster.planner.nodes import SpeedSource
from tbcluster.planner.plan import Wishes
from tests.doubles.own_speed import know_speed
from tests.doubles.planned_rack import GIB, Bench, RackDouble

BY_HAND = [[("head", StageRange(0, 4)), ("mini2", StageRange(4, 8))]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    shutil.copytree(MODEL_PATH, folder)
    return folder


def test_one_machine_needs_no_rack(model: Path) -> None:
    bench = Bench(Order(model))
    prepared = bench.run()
    assert bench.plans == [prepared.plan] == [bench.preparation.plan]
    assert {s.node for replica in prepared.plan.replicas for s in replica.stages} == {THIS_MACHINE}
    assert prepared.replicas[0].sources[0] == str(model)
    assert prepared.no_reference_because is None
    assert any("float32" in note for note in bench.notes)


def test_what_other_models_hold_is_not_there(model: Path) -> None:
    order = Order(model, memory_bytes=GIB)
    (stage, _) = Bench(order).run().plan.replicas[0].stages
    assert stage.memory_bytes == GIB
    beside = replace(order, taken_bytes={THIS_MACHINE: GIB // 4})
    (stage, _) = Bench(beside).run().plan.replicas[0].stages
    assert stage.memory_bytes == GIB - GIB // 4
    full = Bench(replace(order, taken_bytes={THIS_MACHINE: 2 * GIB}))
    with pytest.raises(DoesNotFitError):
        full.run()
    assert full.plans == []


@pytest.mark.parametrize(
    ("bits", "streams", "is_told"), [(None, 40, True), (8, 100, True), (4, 160, False)]
)
def test_fewer_bits_than_the_caches_have_are_a_way_out(
    model: Path, bits: int | None, streams: int, is_told: bool
) -> None:
    wishes = Wishes(context=1024, streams=streams)
    order = Order(model, kv=KvOptions(bits=bits), wishes=wishes, memory_bytes=200 << 20)
    with pytest.raises(DoesNotFitError) as caught:
        Bench(order).run()
    assert ("--kv-bits" in " ".join(caught.value.remedies)) == is_told


def test_this_machine_is_as_fast_as_it_was_measured_to_be(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TBCLUSTER_HOME", str(tmp_path))
    know_speed(tmp_path, model)
    for measures, source in ((True, SpeedSource.MEASURED), (False, SpeedSource.ASSUMED)):
        prepared = Bench(Order(model, measures_speed=measures)).run()
        (here,) = prepared.rack.nodes
        assert here.speed.source is source
    # Beside another model, too.
    beside = Order(model, measures_speed=True, taken_bytes={THIS_MACHINE: 1})
    assert Bench(beside).run().rack.nodes[0].speed.source is SpeedSource.MEASURED


def test_kv_memory_by_hand_is_in_the_plan(model: Path) -> None:
    plan = Bench(Order(model, kv=KvOptions(memory_bytes=2**22))).run().plan
    assert {stage.kv_bytes for stage in plan.replicas[0].stages} == {2**22}


def test_the_bundled_model_is_on_every_node() -> None:
    rack = RackDouble()
    prepared = Bench(Order(by_hand=BY_HAND), rack).run()
    assert rack.needs == {}
    assert prepared.replicas[0].sources == ("", "")


def test_on_a_rack_stages_load_from_what_was_fetched(model: Path) -> None:
    rack = RackDouble()
    bench = Bench(Order(model, by_hand=BY_HAND), rack)
    prepared = bench.run()
    assert rack.awaited == ["head", "mini2"]
    assert prepared.replicas[0].nodes == ("head", "mini2")
    assert prepared.replicas[0].sources == ("/on/head", "/on/mini2")
    assert bench.said == ["fetching: head 40 %, mini2 40 %"]
    assert {span.file for span in rack.needs["head"]} >= {"config.json", "model.safetensors"}
    assert rack.needs["head"] != rack.needs["mini2"]


def test_a_missing_layer_is_told_before_nodes_are_waited_for(model: Path) -> None:
    rack = RackDouble()
    with pytest.raises(PlanError, match="layer"):
        Bench(Order(model, by_hand=[[("head", StageRange(0, 4))]]), rack).run()
    assert rack.awaited is None


def test_a_context_wished_for_others_is_shortened_to_what_the_model_was_made_for(
    model: Path,
) -> None:
    order = Order(model, wishes=Wishes(context=10**6))
    with pytest.raises(PlanError, match="was made for"):
        Bench(order).run()
    bench = Bench(replace(order, shortens_context=True))
    plan = bench.run().plan
    assert 0 < plan.context < 10**6
    assert any(f"made for {plan.context:,} tokens" in note for note in bench.notes)


def test_what_was_fetched_whole_to_the_head_is_compared_with(model: Path) -> None:
    by_hand = [[("head", StageRange(0, 8))], [("mini2", StageRange(0, 8))]]
    for places, folder in ((by_hand, Path("/on/head")), ([by_hand[1]], None), (BY_HAND, None)):
        prepared = Bench(Order(model, by_hand=places), RackDouble()).run()
        assert prepared.whole_folder == model
        assert prepared.opened.weights is not None
        weights = replace(prepared.opened.weights, is_whole=False)
        skeleton = replace(prepared, opened=replace(prepared.opened, weights=weights))
        assert skeleton.whole_folder == folder
        why = skeleton.no_reference_because
        assert (why is None) == (folder is not None)


def test_whoever_gives_up_waits_no_longer(model: Path) -> None:
    bench = Bench(Order(model), RackDouble())
    bench.is_over = True
    with pytest.raises(ClusterClosedError):
        bench.run()
    assert bench.preparation.doing == "waiting for mini2"


def test_prefixes_on_disk_are_for_one_machine(tmp_path: Path) -> None:
    order = Order(kv=KvOptions(prefix_folder=tmp_path))
    with pytest.raises(PlanError, match=r"leave out --prefix-folder, or .* --local"):
        Bench(order, RackDouble()).run()


def test_the_unsharded_model_is_compared_with_where_the_head_can_hold_it(
    model: Path,
) -> None:
    prepared = Bench(Order(model, by_hand=BY_HAND), RackDouble()).run()
    check = parity_check(prepared, lambda _: None)
    check.close()
    assert isinstance(check, ReferenceCheck)


@pytest.mark.parametrize("is_fixed", [False, True])
def test_elsewhere_stages_are_checked_against_one_another(is_fixed: bool) -> None:
    prepared = Bench(Order(by_hand=BY_HAND), RackDouble()).run()
    weights = prepared.opened.profile.weight_bytes
    rack = replace(
        prepared.rack,
        nodes=tuple(replace(one, memory_bytes=weights) for one in prepared.rack.nodes),
    )
    (served,) = prepared.replicas
    served = replace(served, caches=replace(served.caches, fixed_chunks=is_fixed))
    small = replace(prepared, rack=rack, replicas=(served,))
    assert small.no_reference_because == "head has no memory for all of it beside its stages"
    notes: list[str] = []
    check = parity_check(small, notes.append)
    assert isinstance(check, NoCheck if is_fixed else ConsistencyCheck)
    (note,) = notes
    assert "not compared with the unsharded model: head has no memory" in note


def test_how_far_the_nodes_are() -> None:
    fetches = (
        FetchStatus("head", 10, 10, is_done=True),
        FetchStatus("mini2", 4, 10),
        FetchStatus("mini3", 0, 0),
    )
    assert fetching(fetches) == "fetching: mini2 40 %, mini3 0 %"
    assert fetching(fetches[:1]) == "fetching the weights"


def test_stages_that_are_not_started_yet() -> None:
    prepared = Bench(Order(by_hand=[*BY_HAND, *BY_HAND]), RackDouble()).run()
    stages = planned_stages(prepared.plan, [FetchStatus("mini2", 4, 10)], is_rack=True)
    assert [(s.index, s.replica, s.node) for s in stages] == [
        (0, 0, "head"),
        (1, 0, "mini2"),
        (2, 1, "head"),
        (3, 1, "mini2"),
    ]
    assert [stage.state for stage in stages[:2]] == [StageState.LOADING, StageState.FETCHING]
    assert (stages[1].loaded_bytes, stages[1].total_bytes) == (4, 10)
    alone = planned_stages(prepared.plan, (), is_rack=False)
    assert {stage.node for stage in alone} == {None}


def test_wishes_reach_the_plan(model: Path) -> None:
    plan = Bench(Order(model, wishes=Wishes(stages=1, replicas=2, context=300))).run().plan
    assert len(plan.replicas) == 2
    assert [len(replica.stages) for replica in plan.replicas] == [1, 1]
    assert plan.context == 300
