"""The newest events of a server, numbered. Thread-safe."""

import threading
import time
from collections import deque
from collections.abc import Callable

from tbcluster.server.live.view import LiveEvent

MAX_EVENTS = 100


class EventLog:
    """Keeps the newest `MAX_EVENTS`.

    Args:
        on_event: Called with each, in the thread that adds it.
        clock: Unix time, seconds.
    """

    def __init__(
        self,
        on_event: Callable[[LiveEvent], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._on_event = on_event
        self._clock = clock
        self._lock = threading.Lock()
        self._number = 0
        self._events: deque[LiveEvent] = deque(maxlen=MAX_EVENTS)

    def add(self, text: str, kind: str = "note", level: str = "info") -> None:
        """Something happened; kinds and levels are `LiveEvent`'s."""
        with self._lock:
            self._number += 1
            event = LiveEvent(self._number, self._clock(), kind, level, text)
            self._events.append(event)
        self._on_event(event)

    def newest(self) -> tuple[LiveEvent, ...]:
        """What is kept, oldest first."""
        with self._lock:
            return tuple(self._events)
