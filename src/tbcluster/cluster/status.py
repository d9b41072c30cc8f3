"""What a cluster is doing, for people and programs."""

from dataclasses import dataclass
from enum import StrEnum

from tbcluster.cluster.stages import StageStatus
from tbcluster.machine import Serving


class ClusterState(StrEnum):
    """What the cluster can do now."""

    STARTING = "starting"
    READY = "ready"
    RECOVERING = "recovering"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A snapshot for people and programs."""

    state: ClusterState
    model: str
    stages: tuple[StageStatus, ...]
    num_requests: int
    error: str | None


def serving(status: ClusterStatus) -> Serving:
    """The same as the rack tells it."""
    stages: dict[str, tuple[str, ...]] = {}
    for stage in status.stages:
        line = f"{stage.index}: layers {stage.layers.start}-{stage.layers.end - 1}"
        node = stage.node or ""
        stages[node] = (*stages.get(node, ()), line)
    failure = f": {status.error}" if status.error is not None else ""
    return Serving(status.model, f"{status.state}{failure}", stages)
