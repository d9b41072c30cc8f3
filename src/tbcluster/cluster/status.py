"""What a cluster is doing, for people and programs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from tbcluster.cluster.stage_status import StageState, StageStatus
from tbcluster.machine import Serving
from tbcluster.planner.plan import Plan

if TYPE_CHECKING:
    # One machine alone needs none of it, and it takes its time to import.
    from tbcluster.cluster.rack.fetching import FetchStatus


class ClusterState(StrEnum):
    """What the cluster can do now."""

    STARTING = "starting"
    READY = "ready"
    RECOVERING = "recovering"
    # Too few nodes are left for the model: it waits for them.
    STARVED = "starved"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class RecoveryStats:
    """What was recovered from since the model was loaded, of all replicas together.

    Attributes:
        num_recoveries: Those that have ended, by their kind.
        last_seconds: How long the newest one took, from the loss to the next step; None before any.
        total_seconds: All of them together.
        num_parity_checks: Comparisons of the output, at load, after a recovery and by schedule.
        num_parity_failures: How many of them found a difference.
        num_paused: Requests that wait for a recovery now.
    """

    num_recoveries: Mapping[str, int] = field(default_factory=dict)
    last_seconds: float | None = None
    total_seconds: float = 0.0
    num_parity_checks: int = 0
    num_parity_failures: int = 0
    num_paused: int = 0


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A snapshot for people and programs.

    Attributes:
        stages: Of all replicas, one after another; before they are started, as they are planned.
        error: Why it has failed, or a replica of it.
        doing: While it starts or recovers: with what, such as "waiting for mini2"; while it is
            starved: what is missing.
    """

    state: ClusterState
    model: str
    stages: tuple[StageStatus, ...]
    num_requests: int
    error: str | None
    doing: str | None = None
    recoveries: RecoveryStats = field(default_factory=RecoveryStats)


def planned_stages(
    plan: Plan, fetches: Iterable["FetchStatus"], *, is_rack: bool
) -> tuple[StageStatus, ...]:
    """Stages that are not started yet; what their node has fetched counts as loaded."""
    by_node = {fetch.node: fetch for fetch in fetches}
    stages: list[StageStatus] = []
    for number, replica in enumerate(plan.replicas):
        for stage in replica.stages:
            status = StageStatus(len(stages), stage.layers, replica=number)
            status.node = stage.node if is_rack else None
            if (fetch := by_node.get(stage.node)) is not None:
                status.state = StageState.FETCHING
                status.loaded_bytes, status.total_bytes = fetch.done_bytes, fetch.total_bytes
            stages.append(status)
    return tuple(stages)


def state_of(replicas: Iterable[ClusterState]) -> ClusterState:
    """What replicas that were all loaded once can do together: one that is up is enough."""
    states = set(replicas)
    for state in (
        ClusterState.READY,
        ClusterState.RECOVERING,
        ClusterState.STARVED,
        ClusterState.FAILED,
    ):
        if state in states:
            return state
    return ClusterState.STARTING


def fetching(fetches: Iterable["FetchStatus"]) -> str:
    """How far the nodes are that still fetch, in words."""
    left = [_share(one) for one in fetches if not one.is_done]
    return f"fetching: {', '.join(left)}" if left else "fetching the weights"


def _share(fetch: "FetchStatus") -> str:
    share = f"{fetch.node} {100 * fetch.done_bytes // max(1, fetch.total_bytes)} %"
    return f"{share} checked" if fetch.is_checking else share


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
    is_replicated = any(stage.replica for stage in status.stages)
    for stage in status.stages:
        if stage.state is StageState.DEAD:
            continue  # its node holds nothing of it
        line = f"{stage.index}: layers {stage.layers.start}-{stage.layers.end - 1}"
        line += f" (replica {stage.replica + 1})" if is_replicated else ""
        node = stage.node or ""
        stages[node] = (*stages.get(node, ()), line)
    words = (status.state.value, status.doing, status.error)
    return Serving(status.model, ": ".join(word for word in words if word is not None), stages)
