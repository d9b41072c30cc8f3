"""A virtual clock: what happens when, one thing after the other. Deterministic."""

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class Events:
    """What is yet to happen. Things of one time happen in the order in which they were planned.

    Attributes:
        now: Seconds since the beginning.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action]] = []
        self._numbers = count()

    def clock(self) -> float:
        """Now, as a function."""
        return self.now

    def at(self, time_s: float, action: Action) -> None:
        """Let something happen at a time, which is not over."""
        heapq.heappush(self._heap, (max(time_s, self.now), next(self._numbers), action))

    def run_next(self, until_s: float = float("inf")) -> bool:
        """Let the next thing happen; False where there is none before `until_s`."""
        if not self._heap or self._heap[0][0] > until_s:
            return False
        self.now, _, action = heapq.heappop(self._heap)
        action()
        return True
