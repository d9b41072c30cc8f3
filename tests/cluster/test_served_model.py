"""Replicas of a plan, before anything is loaded."""

import pytest

from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.opening import THIS_MACHINE, OpenedModel, open_model, plan_here, plan_model
from tbcluster.cluster.plan_rack import one_machine
from tbcluster.cluster.served_model import served_models
from tbcluster.core import StageRange
from tbcluster.errors import PlanError
from tbcluster.planner.nodes import NodeSpeed, PlanLink, PlanNode, PlanRack
from tbcluster.planner.plan import Plan, Wishes

GIB = 1 << 30
SPEED = NodeSpeed(((1, 1e-10),), 1e-4, 1e-4, 1e-10)
HERE = one_machine(4 * GIB, SPEED, THIS_MACHINE)
LINK = PlanLink(1e-4, 1e9)
RACK = PlanRack(
    (PlanNode("head", GIB, SPEED, is_head=True), PlanNode("mini2", 2 * GIB, SPEED)),
    {("head", "mini2"): LINK, ("mini2", "head"): LINK},
)


@pytest.fixture(scope="module")
def opened() -> OpenedModel:
    return open_model(None)


def layers(plan: Plan) -> list[list[str]]:
    return [[str(stage.layers) for stage in replica.stages] for replica in plan.replicas]


def test_one_machine_cuts_in_two_unless_told_otherwise(opened: OpenedModel) -> None:
    assert layers(plan_here(opened, HERE, Wishes())) == [["0-3", "4-7"]]
    assert layers(plan_here(opened, HERE, Wishes(stages=1))) == [["0-7"]]


def test_replicas_on_one_machine_share_it(opened: OpenedModel) -> None:
    plan = plan_here(opened, HERE, Wishes(replicas=2, streams=3))
    assert layers(plan) == [["0-3", "4-7"]] * 2
    assert plan.streams == 4
    shares = {stage.memory_bytes for replica in plan.replicas for stage in replica.stages}
    assert shares == {2 * GIB}
    with pytest.raises(PlanError, match="3 replicas for 2 streams"):
        plan_here(opened, HERE, Wishes(replicas=3, streams=2))


def test_stages_and_their_memory(opened: OpenedModel) -> None:
    plan = plan_here(opened, HERE, Wishes(replicas=2))
    first, second = served_models(opened, plan, KvOptions(prefix_disk_bytes=100))
    assert (first.replica, first.first_stage) == (0, 0)
    assert (second.replica, second.first_stage) == (1, 2)
    assert first.ranges == (StageRange(0, 4), StageRange(4, 8))
    assert first.nodes is None
    assert first.sources == (str(opened.folder.path),) * 2
    assert first.tokenizer is second.tokenizer
    assert first.kv.prefix_disk_bytes == 50
    for stage, budget in zip(plan.replicas[0].stages, first.kv_budgets, strict=True):
        assert budget > stage.kv_bytes
    used = sum(stage.used_bytes - stage.kv_bytes for stage in plan.replicas[0].stages)
    assert sum(first.kv_budgets) < 2 * GIB - used


def test_no_more_than_the_promise_where_others_need_room(opened: OpenedModel) -> None:
    plan = plan_here(opened, HERE, Wishes(context=512, streams=2))
    (served,) = served_models(opened, plan, KvOptions(keeps_to_promise=True))
    assert served.kv_budgets == tuple(stage.kv_bytes for stage in plan.replicas[0].stages)
    assert served.limits.kv_tokens is not None
    assert served.limits.kv_tokens >= 512


def test_each_stage_loads_from_the_folder_of_its_node(opened: OpenedModel) -> None:
    by_hand = [[("mini2", StageRange(0, 6)), ("head", StageRange(6, 8))]]
    plan = plan_model(opened, RACK, Wishes(), by_hand)
    (served,) = served_models(opened, plan, KvOptions(), {"head": "/h", "mini2": "/m"})
    assert served.nodes == ("mini2", "head")
    assert served.sources == ("/m", "/h")
    assert served.kv_budgets[0] > served.kv_budgets[1]
