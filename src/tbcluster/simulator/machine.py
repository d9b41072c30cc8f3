"""A machine that computes, on a virtual clock."""

from collections.abc import Callable
from dataclasses import dataclass

from tbcluster.simulator.events import Events

# Less work than this is rounding.
NOTHING_S = 1e-12


@dataclass(eq=False, slots=True)
class _Job:
    left_s: float
    done: Callable[[], None]


class SimulatedMachine:
    """Computes jobs of some seconds each. Those that compute at the same time share it.

    Args:
        at_once: How many jobs compute at full speed at the same time: 1 for a GPU, more for
            processors with several cores.
    """

    def __init__(self, events: Events, at_once: float = 1.0) -> None:
        self._events = events
        self._at_once = at_once
        self._jobs: list[_Job] = []
        self._changed_at = 0.0
        self._version = 0

    def compute(self, seconds: float, done: Callable[[], None]) -> None:
        """Begin a job that takes so long alone; `done` is called at its end."""
        self._advance()
        self._jobs.append(_Job(seconds, done))
        self._plan()

    @property
    def _pace(self) -> float:
        return min(1.0, self._at_once / len(self._jobs))

    def _advance(self) -> None:
        passed_s = self._events.now - self._changed_at
        self._changed_at = self._events.now
        if self._jobs and passed_s:
            pace = self._pace
            for job in self._jobs:
                job.left_s -= passed_s * pace

    def _plan(self) -> None:
        """When the next job ends, unless others come or go before."""
        self._version += 1
        if self._jobs:
            version = self._version
            first_s = min(job.left_s for job in self._jobs) / self._pace
            self._events.at(self._events.now + max(0.0, first_s), lambda: self._finish(version))

    def _finish(self, version: int) -> None:
        if version != self._version:
            return
        if len(self._jobs) == 1:
            self._version += 1
            self._jobs.pop().done()
            return
        self._advance()
        least_s = min(job.left_s for job in self._jobs)
        ended = [job for job in self._jobs if job.left_s <= least_s + NOTHING_S]
        self._jobs = [job for job in self._jobs if job.left_s > least_s + NOTHING_S]
        self._plan()
        for job in ended:
            job.done()
