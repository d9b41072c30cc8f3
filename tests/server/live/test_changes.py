from dataclasses import replace

import pytest

from tbcluster.cluster.stage_status import StageState
from tbcluster.cluster.status import ClusterState, RecoveryStats
from tbcluster.machine import NodeState
from tbcluster.server.live.building import build_view
from tbcluster.server.live.changes import changes
from tbcluster.server.live.facts import Facts, ModelFacts
from tests.server.live.facts import NAMES, facts, node, rack, stage, statistics, status


def told(before: Facts, now: Facts) -> list[tuple[str, str]]:
    """Kinds and texts of what happened."""
    views = build_view(None, before), build_view(before, now)
    return [(change.kind, change.text) for change in changes(*views)]


def with_node(**changes: object) -> Facts:
    """The second node is otherwise."""
    return facts(rack=rack((node("head"), node("two", **changes), node("three"))))


def with_stage(**changes: object) -> Facts:
    """The second stage is otherwise."""
    stages = (stage(0, "head"), stage(1, "two", **changes), stage(2, "three"))
    return facts(model=ModelFacts(status(stages), statistics()))


def with_model(**changes: object) -> Facts:
    """The model is otherwise."""
    return facts(model=ModelFacts(status(**changes), statistics()))


def test_nothing_happened() -> None:
    assert told(facts(1.0), facts(2.0)) == []


LOST = "toy: stage 1 (layers 4-7) on two is lost"
BACK = "toy: stage 1 (layers 4-7) runs on two"


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (facts(), with_node(state=NodeState.OFFLINE), [("node_lost", "two is lost")]),
        (with_node(state=NodeState.OFFLINE), facts(), [("node_back", "two is online")]),
        (facts(), with_node(is_drained=True), [("note", "two is drained")]),
        (facts(), with_stage(state=StageState.DEAD), [("stage_lost", LOST)]),
        (
            with_stage(state=StageState.DEAD),
            with_stage(state=StageState.LOADING, num_restarts=1),
            [],
        ),
        (
            with_stage(state=StageState.LOADING, num_restarts=1),
            with_stage(num_restarts=1),
            [("stage_back", BACK)],
        ),
        # All of it between two looks.
        (facts(), with_stage(num_restarts=1), [("stage_lost", LOST), ("stage_back", BACK)]),
        (
            facts(),
            with_model(state=ClusterState.RECOVERING, doing="loading stage 1"),
            [("model", "toy is recovering: loading stage 1")],
        ),
        (
            with_model(state=ClusterState.RECOVERING),
            with_model(recoveries=RecoveryStats({"worker": 1}, 1.26)),
            [("recovered", "toy has recovered after 1.3 s"), ("model", "toy is ready")],
        ),
        (
            facts(),
            with_model(state=ClusterState.FAILED, error="no memory"),
            [("model", "toy has failed: no memory")],
        ),
        # Whoever loads models says so.
        (facts(models={}), facts(), []),
        (facts(), facts(models={}), []),
    ],
)
def test_what_happened_is_told(before: Facts, now: Facts, expected: list[tuple[str, str]]) -> None:
    assert told(before, now) == expected


def test_a_node_that_joins_is_told_of_when_it_was_known() -> None:
    new = facts(rack=rack((*map(node, NAMES), node("four"))))
    assert told(facts(), new) == []
    assert told(new, replace(new, rack=rack(tuple(map(node, NAMES))))) == []
