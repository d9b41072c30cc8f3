"""Stage workers that nobody uses now, with their weights: which are taken, and which end. Pure.

Each waits for a plan that wants its shard, and only while a coordinator is there that could want
it. A free worker is in the way of a new one of the same model: its memory is needed, and whoever
starts that one has a plan in which the free one has no place.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from tbcluster.wire.control import StageSpec

# For how long one waits.
FREE_S = 60.0

Worker = TypeVar("Worker")


@dataclass(slots=True, eq=False)
class _Free(Generic[Worker]):
    worker: Worker
    spec: StageSpec
    # Since when it waits for the coordinator that is there; None while none is.
    since: float | None


class FreeWorkers(Generic[Worker]):
    """All of one agent's, oldest first."""

    def __init__(self) -> None:
        self._free: list[_Free[Worker]] = []
        self._is_held = False

    def __len__(self) -> int:
        return len(self._free)

    def add(self, worker: Worker, spec: StageSpec, now: float) -> None:
        """One is free from now on."""
        self._free.append(_Free(worker, spec, None if self._is_held else now))

    def take(self, spec: StageSpec) -> Worker | None:
        """One that holds the shard of this stage, which is free no more."""
        if not spec.shard:
            return None
        return next(
            iter(self._remove([f for f in self._free if f.spec.shard == spec.shard][:1])), None
        )

    def take_all(self) -> list[Worker]:
        """All, which are free no more."""
        return self._remove(list(self._free))

    def take_obsolete(self, spec: StageSpec) -> list[Worker]:
        """Those that have to end before this stage is loaded, which are free no more."""
        return self._remove([f for f in self._free if f.spec.model == spec.model])

    def take_overdue(self, now: float) -> list[Worker]:
        """Those that have waited long enough, which are free no more."""
        return self._remove(
            [f for f in self._free if f.since is not None and now >= f.since + FREE_S]
        )

    def next_at(self) -> float:
        """When one has waited long enough."""
        return min(
            (f.since + FREE_S for f in self._free if f.since is not None), default=float("inf")
        )

    def discard(self, worker: Worker) -> bool:
        """Whether this one, which has ended, was free."""
        return bool(self._remove([f for f in self._free if f.worker is worker]))

    def hold(self) -> None:
        """No coordinator is there: none of them waits."""
        self._is_held = True
        for free in self._free:
            free.since = None

    def resume(self, now: float) -> None:
        """One is there (again): they wait from now on."""
        self._is_held = False
        for free in self._free:
            free.since = now

    def _remove(self, those: list[_Free[Worker]]) -> list[Worker]:
        self._free = [free for free in self._free if free not in those]
        return [free.worker for free in those]
