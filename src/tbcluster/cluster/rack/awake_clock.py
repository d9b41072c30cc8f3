"""The time by which nodes are given up. A coordinator that was stopped, or got no further for lack
of memory, has heard nobody meanwhile: that is not held against them."""

import time
from collections.abc import Callable

# Whoever listens turns ten times a second; so much of the time between two turns counts.
MAX_TURN_S = 1.0


class AwakeClock:
    """Turned by one thread, read by any.

    Attributes:
        now: Seconds in which that thread got on, as of its last turn.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = 0.0
        self._clock = clock
        self._turned_at = clock()

    def turn(self) -> float:
        """The time now."""
        before, self._turned_at = self._turned_at, self._clock()
        self.now += min(self._turned_at - before, MAX_TURN_S)
        return self.now
