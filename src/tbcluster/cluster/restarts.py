"""How often a worker may be started again. Pure: times come in."""

from collections import deque

MAX_RESTARTS = 5
WINDOW_S = 60.0


class RestartBudget:
    """At most `max_restarts` within any `window_s` seconds, so that a stage that dies at once each
    time ends in an error instead of a loop."""

    def __init__(self, max_restarts: int = MAX_RESTARTS, window_s: float = WINDOW_S) -> None:
        self._max_restarts = max_restarts
        self._window_s = window_s
        self._times: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Whether one more restart is allowed now; if so it is counted."""
        while self._times and self._times[0] <= now - self._window_s:
            self._times.popleft()
        if len(self._times) >= self._max_restarts:
            return False
        self._times.append(now)
        return True
