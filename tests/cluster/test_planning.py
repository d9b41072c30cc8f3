"""Plans for a rack as its coordinator sees it."""

import re
from dataclasses import replace

import pytest

from tbcluster.cluster.opening import OpenedModel, open_model
from tbcluster.cluster.plan_request import PlanRequest
from tbcluster.cluster.planning import METAL, plan_viewed
from tbcluster.core import StageRange
from tbcluster.errors import DoesNotFitError, PlanError
from tbcluster.machine import NodeState, RackView
from tbcluster.planner.nodes import SpeedSource
from tbcluster.planner.plan import Wishes
from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.plans import SPEED
from tests.doubles.racks import COMPUTE, MAC, both_ways, node, rack

REQUEST = PlanRequest(None, Wishes(context=256, streams=1))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenedModel:
    folder = write_llama(tmp_path_factory.mktemp("toy"), LlamaSizes(num_hidden_layers=4))
    return open_model(folder, is_on_rack=True, device=METAL)


def viewed(*away: str) -> RackView:
    """Two Macs with a link between them, and some that are offline."""
    return rack(
        node("mini1", is_head=True),
        node("mini2"),
        *(node(name, state=NodeState.OFFLINE) for name in away),
        links=both_ways("mini1", "mini2"),
    )


def test_only_nodes_that_are_there_are_planned_with(opened: OpenedModel) -> None:
    view = replace(viewed("mini3"), serving="Qwen3-8B")
    planned = plan_viewed(REQUEST, opened, view, {"id-mini1": SPEED})
    sources = {node.name: node.speed.source for node in planned.rack.nodes}
    assert sources == {"mini1": SpeedSource.MEASURED, "mini2": SpeedSource.CATALOGUE}
    assert planned.notes == (
        "mini3 is offline: planned without it",
        "planned as if Qwen3-8B were not being served",
    )


def test_by_hand_both_nodes_are_used(opened: OpenedModel) -> None:
    by_hand = ((("mini2", StageRange(0, 1)), ("mini1", StageRange(1, 4))),)
    planned = plan_viewed(replace(REQUEST, by_hand=by_hand), opened, viewed(), {})
    (replica,) = planned.plan.replicas
    assert [stage.node for stage in replica.stages] == ["mini2", "mini1"]
    assert planned.notes == ()
    away = ((("mini3", StageRange(0, 4)),),)
    with pytest.raises(PlanError, match="'mini3'"):
        plan_viewed(replace(REQUEST, by_hand=away), opened, viewed("mini3"), {})


def test_it_is_told_what_would_fit_with_a_node_that_is_away(opened: OpenedModel) -> None:
    small = replace(MAC, compute=replace(COMPUTE, working_set_bytes=1000))
    view = rack(node("mini1", small, is_head=True), node("mini3", state=NodeState.OFFLINE))
    with pytest.raises(DoesNotFitError, match=re.escape("with mini3, which is offline now")):
        plan_viewed(REQUEST, opened, view, {})
