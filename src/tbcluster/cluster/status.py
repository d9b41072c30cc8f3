"""What a cluster is doing, for people and programs."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tbcluster.cluster.stages import StageState, StageStatus
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
    """A snapshot for people and programs.

    Attributes:
        error: Why it has failed.
        doing: While it starts: with what, such as "waiting for mini2".
    """

    state: ClusterState
    model: str
    stages: tuple[StageStatus, ...]
    num_requests: int
    error: str | None
    doing: str | None = None


def loading(stages: Iterable[StageStatus]) -> str:
    """How far the stages that are not ready yet are, in words."""
    left = [_loading(stage) for stage in stages if stage.state is not StageState.READY]
    return f"loading {', '.join(left)}" if left else "connecting the stages"


def _loading(stage: StageStatus) -> str:
    where = f" on {stage.node}" if stage.node is not None else ""
    name = f"stage {stage.index}{where}"
    if not stage.total_bytes:
        return name
    return f"{name}: {100 * stage.loaded_bytes // stage.total_bytes} %"


def serving(status: ClusterStatus) -> Serving:
    """The same as the rack tells it."""
    stages: dict[str, tuple[str, ...]] = {}
    for stage in status.stages:
        line = f"{stage.index}: layers {stage.layers.start}-{stage.layers.end - 1}"
        node = stage.node or ""
        stages[node] = (*stages.get(node, ()), line)
    words = (status.state.value, status.doing, status.error)
    return Serving(status.model, ": ".join(word for word in words if word is not None), stages)
