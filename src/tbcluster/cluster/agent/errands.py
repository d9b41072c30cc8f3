"""Threads that do what takes time, so that the agent's own is never held up."""

import logging
import queue
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

Errand = Callable[[], None]


class Errands:
    """A thread that does one thing after another."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Errand | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, errand: Errand) -> None:
        """Do this after all that was asked before. Thread-safe."""
        self._queue.put(errand)

    def close(self, timeout_s: float | None = None) -> None:
        """Wait until all is done, or for so long."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (errand := self._queue.get()) is not None:
            try:
                errand()
            except Exception:  # the top loop: what comes next has to be done all the same
                logger.exception("%s: failed", self._name)
