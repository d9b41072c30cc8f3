"""What a cluster is doing, as the rack tells it."""

import pytest

from tbcluster.cluster.stage_status import StageState, StageStatus
from tbcluster.cluster.status import ClusterState, ClusterStatus, loading, serving, state_of
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


def test_a_node_holds_nothing_of_a_stage_that_has_ended() -> None:
    ended = StageStatus(1, StageRange(12, 13), StageState.DEAD, node="mini2")
    assert set(serving(status(STAGES[0], ended)).stages) == {"mini1"}


def test_stages_of_replicas_are_told_apart() -> None:
    stages = (StageStatus(0, StageRange(0, 2)), StageStatus(1, StageRange(0, 2), replica=1))
    assert serving(status(*stages)).stages == {
        "": ("0: layers 0-1 (replica 1)", "1: layers 0-1 (replica 2)")
    }


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


def test_what_it_does_while_it_starts_is_said() -> None:
    doing = status(state=ClusterState.STARTING, doing="waiting for mini2")
    assert serving(doing).state == "starting: waiting for mini2"


def test_how_far_the_stages_are() -> None:
    stages = (
        StageStatus(0, StageRange(0, 2), StageState.READY, node="mini1"),
        StageStatus(1, StageRange(2, 3), node="mini2"),
        StageStatus(2, StageRange(3, 4), node="mini3", loaded_bytes=599, total_bytes=1000),
        StageStatus(3, StageRange(4, 5), loaded_bytes=1000, total_bytes=1000),
    )
    assert loading(stages) == "loading stage 1 on mini2, stage 2 on mini3: 59 %, stage 3: 100 %"
    assert loading(stages[:1]) == loading(()) == "connecting the stages"


def test_before_there_are_stages() -> None:
    assert serving(status(state=ClusterState.STARTING)).stages == {}


def test_on_one_machine_there_are_no_nodes_to_name() -> None:
    assert serving(status(StageStatus(0, StageRange(0, 2)))).stages == {"": ("0: layers 0-1",)}


@pytest.mark.parametrize(
    ("replicas", "together"),
    [
        ([ClusterState.READY, ClusterState.RECOVERING], ClusterState.READY),
        ([ClusterState.FAILED, ClusterState.READY], ClusterState.READY),
        ([ClusterState.FAILED, ClusterState.RECOVERING], ClusterState.RECOVERING),
        ([ClusterState.FAILED, ClusterState.FAILED], ClusterState.FAILED),
    ],
)
def test_one_replica_that_is_up_is_enough(
    replicas: list[ClusterState], together: ClusterState
) -> None:
    assert state_of(replicas) is together
