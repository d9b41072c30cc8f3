"""Looks after all stage workers of this process, in one thread that lasts as long as there are
some."""

import logging
import threading
import time
from collections.abc import Callable

from tbcluster.cluster.pulse import TICK_S

logger = logging.getLogger(__name__)

Look = Callable[[float], None]


class WorkerWatch:
    """Calls each `Look` with the time of `time.monotonic` every `TICK_S`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: list[Look] = []
        self._is_running = False

    def add(self, look: Look) -> None:
        """Call this one, too."""
        with self._lock:
            self._looks.append(look)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="worker-watch", daemon=True).start()

    def remove(self, look: Look) -> None:
        """Call this one no more; one call may still be under way."""
        with self._lock:
            if look in self._looks:
                self._looks.remove(look)

    def _run(self) -> None:
        while looks := self._due():
            for look in looks:
                try:
                    look(time.monotonic())
                except Exception:  # the top loop: the others have to be looked at all the same
                    logger.exception("looking after a worker failed")
            time.sleep(TICK_S)

    def _due(self) -> list[Look]:
        with self._lock:
            self._is_running = bool(self._looks)
            return list(self._looks)


worker_watch = WorkerWatch()
"""That of this process."""
