"""The newest events of a server, numbered. Thread-safe."""

import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from tbcluster.server.live.view import LiveEvent
from tbcluster.server.problems import without_paths

MAX_EVENTS = 100


class EventLog:
    """Keeps the newest `MAX_EVENTS`, without paths of this machine.

    Args:
        on_event: Called with each as it was said, in the thread that adds it.
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
            # Those who look from afar need not know where things are on this machine.
            self._events.append(msgspec.structs.replace(event, text=without_paths(text)))
        self._on_event(event)

    def newest(self) -> tuple[LiveEvent, ...]:
        """What is kept, oldest first."""
        with self._lock:
            return tuple(self._events)
