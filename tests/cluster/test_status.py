"""What a cluster is doing, as the rack tells it."""

import pytest

from tbcluster.cluster.stages import StageStatus
from tbcluster.cluster.status import ClusterState, ClusterStatus, serving
from tbcluster.core import StageRange
from tbcluster.machine import Serving

STAGES = (
    StageStatus(0, StageRange(0, 12), node="mini1"),
    StageStatus(1, StageRange(12, 13), node="mini2"),
    StageStatus(2, StageRange(13, 24), node="mini1"),
)


def status(*stages: StageStatus, **facts: object) -> ClusterStatus:
    known: dict[str, object] = {"state": ClusterState.READY, "error": None, **facts}
    return ClusterStatus(model="/model", stages=stages, num_requests=3, **known)  # type: ignore[arg-type]


def test_the_stages_of_each_node_have_a_line() -> None:
    assert serving(status(*STAGES)) == Serving(
        "/model",
        "ready",
        {
            "mini1": ("0: layers 0-11", "2: layers 13-23"),
            "mini2": ("1: layers 12-12",),
        },
    )


@pytest.mark.parametrize(
    ("state", "error", "expected"),
    [
        (ClusterState.STARTING, None, "starting"),
        (ClusterState.RECOVERING, None, "recovering"),
        (ClusterState.FAILED, "stage 1 was lost", "failed: stage 1 was lost"),
    ],
)
def test_how_it_goes_in_words(state: ClusterState, error: str | None, expected: str) -> None:
    assert serving(status(state=state, error=error)).state == expected


def test_before_there_are_stages() -> None:
    assert serving(status(state=ClusterState.STARTING)).stages == {}


def test_on_one_machine_there_are_no_nodes_to_name() -> None:
    assert serving(status(StageStatus(0, StageRange(0, 2)))).stages == {"": ("0: layers 0-1",)}
