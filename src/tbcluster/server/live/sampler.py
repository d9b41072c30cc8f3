"""Looks at everything once a second, for the views and events of a server."""

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from tbcluster.server.live.building import build_view
from tbcluster.server.live.changes import changes
from tbcluster.server.live.events import EventLog
from tbcluster.server.live.facts import Facts
from tbcluster.server.live.feed import Feed

logger = logging.getLogger(__name__)

EVERY_S = 1.0


class Sampler:
    """A thread that looks, from `start` to `close`.

    Args:
        look: Everything as it is now.
        feed: Gets each view.
    """

    def __init__(
        self, look: Callable[[], Facts], feed: Feed, events: EventLog, every_s: float = EVERY_S
    ) -> None:
        self._look = look
        self._feed = feed
        self._events = events
        self._every_s = every_s
        self._before: Facts | None = None
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-sampler", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self) -> None:
        """Let go of all who look."""
        self._is_ended.set()
        self._feed.end()

    def close(self) -> None:
        """The same, and wait until the last look is over."""
        self.end()
        if self._thread.is_alive():
            self._thread.join()

    def sample(self) -> None:
        """Look once."""
        now = self._look()
        before, self._before = self._before, now
        last = self._feed.newest
        view = build_view(before, now)
        if last is not None:
            for change in changes(last, view):
                self._events.add(change.text, change.kind, change.level)
        self._feed.publish(msgspec.structs.replace(view, events=self._events.newest()))

    def _run(self) -> None:
        due = time.monotonic()
        while not self._is_ended.wait(max(0.0, due - time.monotonic())):
            # A machine that slept has nothing to catch up with.
            due = max(due + self._every_s, time.monotonic())
            try:
                self.sample()
            except Exception:  # what is seen must never end the server that is looked at
                logger.exception("the rack could not be looked at")
