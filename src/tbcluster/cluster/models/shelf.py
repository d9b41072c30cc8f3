"""The models that are in memory: used by requests, and unloaded when the last of them has ended.

Each unloading waits in a thread of its own, so that a forced end never waits for a load.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as await_futures
from contextlib import suppress

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.futures import in_thread, new_future, resolve
from tbcluster.cluster.models.residency import ModelState, Residency, Rules
from tbcluster.errors import ClusterClosedError

# Ending processes on another machine may take a while, and must not take for ever.
CLOSE_PATIENCE_S = 10.0
# A thread cannot be told to sleep for as many seconds as a request may name.
LONGEST_SLEEP_S = 3600.0


class Use:
    """A model that answers a request: it is not unloaded meanwhile, but by force."""

    def __init__(self, shelf: "Shelf", name: str, cluster: Cluster) -> None:
        self.name = name
        self.cluster = cluster
        self._shelf = shelf

    def keep(self, keep_s: float) -> None:
        """Let the model stay so long once nobody uses it; infinity is for ever."""
        self._shelf.keep(self.name, keep_s)

    def end(self) -> None:
        """The request has ended."""
        self._shelf.end_use(self)


class Shelf:
    """Clusters by the names of their models, and how they leave. Thread-safe.

    Args:
        on_left: Called with the name of a model that was unloaded, but not when all ends.

    Attributes:
        changed: Held for moments only; told of every change. Whoever reads what follows holds it.
        residency: What is decided.
        clusters: Those that are loaded, leave, or are being started.
        is_closed: Whether everything ends: nothing begins any more.
    """

    def __init__(
        self,
        rules: Rules,
        drain_s: float,
        on_note: Callable[[str], None] = lambda _: None,
        on_left: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.changed = threading.Condition()
        self.residency = Residency(rules)
        self.clusters: dict[str, Cluster] = {}
        self.is_closed = False
        self.clock = clock
        self._drain_s = drain_s
        self._on_note = on_note
        self._on_left = on_left
        self._leaving: dict[str, Future[None]] = {}
        self._forced: set[str] = set()

    def start(self) -> None:
        """Unload in a thread what nobody uses any more."""
        in_thread(self._watch_expiry)

    def use(self, name: str) -> Use | None:
        """The model for a request, which ends the use; None if it is not loaded."""
        with self.changed:
            return Use(self, name, self.clusters[name]) if self.residency.use(name) else None

    def end_use(self, use: Use) -> None:
        """See `Use.end`."""
        with self.changed:
            # The model may have been unloaded by force, and loaded again, since.
            if self.clusters.get(use.name) is use.cluster:
                self.residency.end_use(use.name, self.clock())
                self.changed.notify_all()

    def keep(self, name: str, keep_s: float) -> None:
        """See `Use.keep`."""
        with self.changed:
            self.residency.keep(name, keep_s)
            self.changed.notify_all()

    def loaded(self) -> dict[str, Cluster]:
        """The clusters that are loaded, or leave."""
        with self.changed:
            return {name: self.clusters[name] for name in self.residency.loaded}

    def taken_by_others(self, name: str) -> dict[str, int]:
        """Memory by node that is not this model's."""
        with self.changed:
            return self.residency.taken(without=(name,))

    def leave(self, name: str, *, force: bool = False) -> "Future[None]":
        """Unload a model; the result is there once its memory is free.

        Args:
            force: End its requests at once; otherwise they may take `drain_s` to finish.
        """
        with self.changed:
            if self.residency.leave(name):
                self._leaving[name] = new_future()
                in_thread(lambda: self._leave(name))
            if force:
                self._forced.add(name)
                self.changed.notify_all()
            return self._leaving[name]

    def make_room(self, victims: tuple[str, ...]) -> None:
        """Unload these and wait for it; one that has become busy meanwhile may finish."""
        with self.changed:
            there = [name for name in victims if name in self.residency.loaded]
            leaving = [self.leave(name) for name in there]
        for future in leaving:
            future.result()

    def end_requests(self, reason: str) -> None:
        """End every request, open or yet to come."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()
        for cluster in self.loaded().values():
            _end_requests(cluster, reason)

    def close(self) -> None:
        """End all clusters, those that are being started too."""
        with self.changed:
            self.is_closed = True
            clusters, leaving = list(self.clusters.values()), list(self._leaving.values())
            self.changed.notify_all()
        for cluster in clusters:
            cluster.close()
        await_futures(leaving, CLOSE_PATIENCE_S)

    def _watch_expiry(self) -> None:
        with self.changed:
            while not self.is_closed:
                for name in self.residency.expired(self.clock()):
                    self.leave(name)
                expiry = self.residency.next_expiry()
                left_s = None if expiry is None else max(0.0, expiry - self.clock())
                self.changed.wait(None if left_s is None else min(left_s, LONGEST_SLEEP_S))

    def _leave(self, name: str) -> None:
        """Let requests finish, end what does not, and free the memory."""

        def may_go() -> bool:
            is_idle = self.residency.loaded[name].num_uses == 0
            return is_idle or name in self._forced or self.is_closed

        with self.changed:
            self.changed.wait_for(may_go, self._drain_s)
            cluster = self.clusters[name]
        try:
            _end_requests(cluster, f"{name} is being unloaded")
            cluster.close()
        finally:
            if not self.is_closed:
                self._on_left(name)
            with self.changed:
                self.residency.left(name)
                self._forced.discard(name)
                del self.clusters[name]
                future = self._leaving.pop(name)
                self.changed.notify_all()
            resolve(future)
            self._on_note(f"{name} is unloaded")

    def is_loaded(self, name: str) -> bool:
        """Whether a model can be used."""
        with self.changed:
            return self.residency.state(name) is ModelState.LOADED


def _end_requests(cluster: Cluster, reason: str) -> None:
    with suppress(ClusterClosedError):
        cluster.end_requests(reason)
