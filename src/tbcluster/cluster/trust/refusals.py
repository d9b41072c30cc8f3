"""When strangers have been refused too often (pure)."""

from collections import deque

MAX_REFUSALS = 10
WINDOW_S = 60.0
BREAK_S = 60.0


class Refusals:
    """Counts those within the last minute; too many of them call for a break."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._break_until = 0.0

    def add(self, now: float) -> bool:
        """One more; whether this one begins a break."""
        self._times.append(now)
        while now - self._times[0] > WINDOW_S:
            self._times.popleft()
        if len(self._times) < MAX_REFUSALS:
            return False
        self._times.clear()
        self._break_until = now + BREAK_S
        return True

    def is_break(self, now: float) -> bool:
        """Whether nobody is to be heard now."""
        return now < self._break_until
