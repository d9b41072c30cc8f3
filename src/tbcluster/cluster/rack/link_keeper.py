"""Decides when which link is measured and watched, and writes down what comes of it."""

import time
from collections.abc import Callable

from tbcluster.cluster.rack.actions import Action
from tbcluster.cluster.rack.attendance import Attendance
from tbcluster.cluster.rack.link_book import LinkBook, MeasureQueue, Pair, fingerprint
from tbcluster.machine import Interface
from tbcluster.wire.rack import Measure, Measured, PathsSeen, Watch

Interfaces = tuple[Interface, ...]


class LinkKeeper:
    """The links between all nodes that are online.

    Args:
        book: What is known of them; it is kept up to date.
        save: Called with all that outlives a run, whenever a link was measured.
    """

    def __init__(
        self, book: LinkBook, attendance: Attendance, save: Callable[[bytes], None]
    ) -> None:
        self._book = book
        self._attendance = attendance
        self._save = save
        self._queue = MeasureQueue()

    def came(self, node_id: str) -> list[Action]:
        """A node is online: links that are known are watched, the others measured. Neither end
        remembers them once the other was gone."""
        actions: list[Action] = []
        for pair in self._pairs_of(node_id):
            if self._is_measured(pair):
                source, target = pair
                watch = Watch(target, self._book.begin_watch(pair))
                actions += self._attendance.send_to(source, watch)
        self.measure(node_id)
        return actions

    def reconnected(self, node_id: str) -> None:
        """What a node was told just before may be lost."""
        self._queue.again(node_id)

    def gone(self, node_id: str) -> None:
        """A node is not online any more."""
        self._queue.drop(node_id)

    def measure(self, node_id: str, *, anew: bool = False) -> None:
        """Have those of its links measured that are not known as they are now, or `anew` all."""
        for pair in self._pairs_of(node_id):
            if anew or not self._is_measured(pair):
                self._queue.add(pair)

    def heard(self, source: str, news: Measured | PathsSeen) -> None:
        """What a node found out about its ways to another."""
        pair = (source, news.peer_id)
        if isinstance(news, PathsSeen):
            self._book.note_dead(pair, news.dead)
            return
        self._queue.done(pair)
        ends = self._ends(pair)
        if ends is not None:
            if not news.paths:
                self._queue.retry(pair)
            self._book.record(pair, fingerprint(*ends), news.paths)
            self._save(self._book.encode())

    def due(self, now: float) -> list[Action]:
        """What is to be measured now."""
        actions: list[Action] = []
        for source, target in self._queue.next(now):
            actions += self._attendance.send_to(source, Measure(target))
        return actions

    def is_busy(self) -> bool:
        """Whether a link between nodes that are online is not measured yet."""
        return self._queue.is_waiting(self._attendance.online())

    def _pairs_of(self, node_id: str) -> list[Pair]:
        """A node and each other one that is online, both ways."""
        others = [other for other in self._attendance.online() if other != node_id]
        return [pair for other in others for pair in ((node_id, other), (other, node_id))]

    def _is_measured(self, pair: Pair) -> bool:
        ends = self._ends(pair)
        return ends is not None and self._book.is_measured(pair, fingerprint(*ends), time.time())

    def _ends(self, pair: Pair) -> tuple[Interfaces, Interfaces] | None:
        """The interfaces of both, if both are online."""
        source, target = map(self._attendance.hello, pair)
        if source is None or target is None:
            return None
        return source.machine.interfaces, target.machine.interfaces
