"""Where each stage stands, for people and programs."""

from dataclasses import dataclass
from enum import StrEnum

from tbcluster.core import StageRange


class StageState(StrEnum):
    """Where a stage worker stands."""

    FETCHING = "fetching"
    LOADING = "loading"
    READY = "ready"
    DEAD = "dead"


@dataclass(slots=True)
class StageStatus:
    """What is known of one stage, numbered through over all replicas; `node` is None where there is
    but one machine."""

    index: int
    layers: StageRange
    state: StageState = StageState.LOADING
    node: str | None = None
    replica: int = 0
    pid: int = 0
    loaded_bytes: int = 0
    total_bytes: int = 0
    memory_bytes: int = 0
    backend: str = ""
    note: str | None = None
    num_restarts: int = 0
