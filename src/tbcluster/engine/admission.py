"""The sequences that wait to start. Pure."""

from collections.abc import Callable, Iterator

from tbcluster.engine.caches import CacheBook
from tbcluster.engine.scheduler import Scheduler
from tbcluster.engine.sequence import Sequence


class Admission:
    """Starts sequences in the order they came, as room allows. One whose prompt begins as another's
    that is being computed right now steps aside until that is a known prefix."""

    def __init__(self, scheduler: Scheduler, caches: CacheBook) -> None:
        self._scheduler = scheduler
        self._caches = caches
        # By arrival, so in order: preempted sequences come back before all that never started.
        self._waiting: dict[int, Sequence] = {}
        self._leader_of: dict[int, int] = {}
        self._blocked_since: int | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(list(self._waiting.values()))

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        is_late = not self._waiting or sequence.arrival > next(reversed(self._waiting))
        self._waiting[sequence.arrival] = sequence
        if not is_late:
            self._waiting = dict(sorted(self._waiting.items()))
            self._blocked_since = None

    def discard(self, sequence: Sequence) -> bool:
        """Take a sequence out; whether it was waiting."""
        self._leader_of.pop(sequence.arrival, None)
        self._blocked_since = None
        return self._waiting.pop(sequence.arrival, None) is not None

    def admit(self, start: Callable[[Sequence], bool], most: int) -> None:
        """Start those that can be, `most` at most. `start` says whether there was room; if not,
        nobody passes, and nobody tries again before something has come free."""
        self._scheduler.settle()
        if self._blocked_since == self._caches.num_freed:
            return
        self._blocked_since = None
        for sequence in self:
            if most <= 0:
                return
            if self._steps_aside(sequence):
                continue
            if not start(sequence):
                self._blocked_since = self._caches.num_freed
                return
            del self._waiting[sequence.arrival]
            most -= 1

    def _steps_aside(self, sequence: Sequence) -> bool:
        leader = self._leader_of.pop(sequence.arrival, None)
        if leader is None or not self._scheduler.is_prefilling(leader):
            leader = self._find_leader(sequence)
        if leader is not None:
            self._leader_of[sequence.arrival] = leader
        return leader is not None

    def _find_leader(self, sequence: Sequence) -> int | None:
        if not sequence.uses_prefixes:
            return None
        num_known = self._caches.prefixes.would_cover(sequence.tokens)
        return self._scheduler.prefix_in_progress(sequence.tokens, num_known)
