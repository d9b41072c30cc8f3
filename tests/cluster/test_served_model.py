"""Replicas of a plan, before anything is loaded."""

from dataclasses import replace

import pytest

from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.opening import THIS_MACHINE, OpenedModel, open_model, plan_here, plan_model
from tbcluster.cluster.plan_rack import one_machine
from tbcluster.cluster.served_model import served_models
from tbcluster.core import StageRange
from tbcluster.errors import DoesNotFitError
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
    stages = [stage for replica in plan.replicas for stage in replica.stages]
    assert {stage.memory_bytes for stage in stages} == {4 * GIB}
    assert sum(stage.used_bytes for stage in stages) < 4 * GIB
    assert plan.reasons[0] == f"2 replicas, as asked, side by side on {THIS_MACHINE}"
    alone = plan_here(opened, HERE, Wishes(streams=2))
    # Two of them compute half as fast.
    assert plan.replicas[0].slowest_s == pytest.approx(2 * alone.replicas[0].slowest_s)


def test_one_stage_where_two_do_not_fit(opened: OpenedModel) -> None:
    """The embedding, which is the head as well, is there once."""
    whole = plan_here(opened, HERE, Wishes(stages=1, context=256, streams=1))
    (stage,) = whole.replicas[0].stages
    # 2 % of a node's memory stay free whatever it runs.
    least = (stage.used_bytes - int(0.02 * HERE.nodes[0].memory_bytes)) * 100 // 98 + 100
    tight = one_machine(least, SPEED, THIS_MACHINE)
    wishes = Wishes(context=256, streams=1)
    assert layers(plan_here(opened, tight, wishes)) == [["0-7"]]
    with pytest.raises(DoesNotFitError):
        plan_here(opened, tight, replace(wishes, stages=2))


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
    stages = [stage for replica in plan.replicas for stage in replica.stages]
    used = sum(stage.used_bytes - stage.kv_bytes for stage in stages)
    assert sum(first.kv_budgets) + sum(second.kv_budgets) < 4 * GIB - used


def test_replicas_by_hand_share_what_a_node_has_left(opened: OpenedModel) -> None:
    by_hand = [[("mini2", StageRange(0, 8))]]
    (alone,) = served_models(opened, plan_model(opened, RACK, Wishes(), by_hand), KvOptions())
    plan = plan_model(opened, RACK, Wishes(), by_hand * 2)
    both = served_models(opened, plan, KvOptions())
    budgets = [sum(replica.kv_budgets) for replica in both]
    assert sum(budgets) < sum(alone.kv_budgets)
    assert budgets[0] == pytest.approx(budgets[1], rel=0.01)


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
