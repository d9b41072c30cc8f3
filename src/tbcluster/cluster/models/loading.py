"""Loads models, one at a time, in the order in which they were asked for."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.catalogue import Loadable
from tbcluster.cluster.models.futures import done, in_thread, new_future, resolve
from tbcluster.cluster.models.memory import sizes_in_words, taken_bytes
from tbcluster.cluster.models.shelf import CLOSE_PATIENCE_S, Shelf
from tbcluster.cluster.status import ClusterState
from tbcluster.errors import (
    ClusterClosedError,
    DoesNotFitError,
    ModelError,
    NoRoomError,
    TbclusterError,
)
from tbcluster.planner.plan import Plan

logger = logging.getLogger(__name__)


class MakeCluster(Protocol):
    """Makes a cluster for a model, and does not start it."""

    def __call__(
        self,
        source: str | Path | None,
        *,
        taken_bytes: Mapping[str, int],
        on_plan: Callable[[Plan], None],
    ) -> Cluster:
        """The cluster, planned beside what others take, by node; `on_plan` is called with its plan
        before any of it is loaded."""
        ...


class Loader:
    """Puts models on the shelf. Whoever loads holds the turn: the loader's own thread, or one that
    wants to load in its own (`load_now`).

    Args:
        room_wait_s: How long a model waits for busy ones that are in its way.
    """

    def __init__(
        self,
        shelf: Shelf,
        make: MakeCluster,
        room_wait_s: float,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.errors: dict[str, str] = {}
        self._shelf = shelf
        self._make = make
        self._room_wait_s = room_wait_s
        self._on_note = on_note
        self._wanted: dict[str, Loadable] = {}
        self._asked: dict[str, Future[None]] = {}
        # Loads that are to end, and the threads that end them.
        self._withdrawn: dict[str, threading.Thread | None] = {}
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="tbcluster-loader", daemon=True)

    def start(self) -> None:
        """Load in a thread what is asked for, and unload what nobody uses any more."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread, once the shelf is closed; not for ever, since a download cannot be
        interrupted."""
        if self._thread.is_alive():
            self._thread.join(CLOSE_PATIENCE_S)

    def ask(self, loadable: Loadable, *, makes_room: bool) -> "Future[None]":
        """Queue a model; see `Models.ask`."""
        name, shelf = loadable.name, self._shelf
        with shelf.changed:
            if shelf.is_closed:
                raise ClusterClosedError("the server is shutting down")
            if shelf.is_loaded(name):
                if not _has_failed(shelf.clusters[name]):
                    return done()
                shelf.leave(name, force=True)
            shelf.residency.ask(name, makes_room=makes_room)
            self.errors.pop(name, None)
            self._wanted[name] = loadable
            asked = self._asked.setdefault(name, new_future())
            shelf.changed.notify_all()
            return asked

    def known(self, name: str) -> Loadable | None:
        """A model that is loaded or wanted: nobody has to look for it."""
        with self._shelf.changed:
            is_there = name in self._shelf.clusters or name in self._asked
            return self._wanted.get(name) if is_there else None

    def asked(self, name: str) -> "Future[None] | None":
        """What those wait for who wait for this model; None if nobody does."""
        with self._shelf.changed:
            return self._asked.get(name)

    def stop(self, name: str) -> "Future[None]":
        """Take a model out of the queue, or end its load; the result is there when it has ended."""
        with self._shelf.changed:
            asked, ended = self._asked[name], new_future()
            asked.add_done_callback(lambda _: resolve(ended))
            if self._shelf.residency.withdraw(name):
                del self._asked[name]
                resolve(asked, _unloaded_meanwhile(name))
            elif name not in self._withdrawn:
                cluster = self._shelf.clusters.get(name)
                # It ends the `start` that the loading thread is in, and takes its time.
                self._withdrawn[name] = None if cluster is None else in_thread(cluster.close)
                self._shelf.changed.notify_all()
            return ended

    def stop_all(self, reason: str) -> None:
        """Let nobody wait any more."""
        with self._shelf.changed:
            waiting = list(self._asked.values())
            self._asked.clear()
        for asked in waiting:
            resolve(asked, ClusterClosedError(reason))

    def load_now(self, loadable: Loadable) -> None:
        """Load a model in this thread, which Ctrl-C then ends as it would end anything else.

        Raises:
            TbclusterError: It cannot be loaded, for this reason.
        """
        with self._turn:
            asked = self.ask(loadable, makes_room=False)
            self._load(loadable.name)
            asked.result()

    def _run(self) -> None:
        while self._wait_for_work():
            with self._turn:
                with self._shelf.changed:
                    is_closed, name = self._shelf.is_closed, self._shelf.residency.next_load()
                if name is not None and not is_closed:
                    self._on_note(f"loading {name}")
                    self._load(name)
                    error = self.errors.get(name)
                    if error is not None:
                        self._on_note(f"{name} is not loaded: {error}")
                    elif self._shelf.is_loaded(name):
                        self._on_note(f"{name} is loaded")

    def _wait_for_work(self) -> bool:
        """Wait until a model's turn has come, and let those go whose time is up meanwhile; False
        in the end."""
        shelf = self._shelf
        with shelf.changed:
            while not shelf.is_closed:
                if shelf.residency.next_load() is not None:
                    return True
                shelf.changed.wait(shelf.expire())
            return False

    def _load(self, name: str) -> None:
        """Load a queued model, and tell those who wait for it."""
        with self._shelf.changed:
            if not self._shelf.residency.is_queued(name):
                return  # nobody wants it any more
            self._shelf.residency.begin(name)
        error: BaseException = ClusterClosedError(f"loading {name} was interrupted")
        taken = None
        try:
            taken = taken_bytes(self._started(self._wanted[name]))
        except TbclusterError as raised:
            error = raised
        except Exception as raised:  # the top of a load: others must not wait for it for ever
            logger.exception("loading %s failed", name)
            error = ModelError(f"loading {name} failed: {raised}")
        finally:
            closer = self._withdrawn.get(name)
            if closer is not None:
                closer.join()
            elif taken is None and (left := self._shelf.clusters.get(name)) is not None:
                left.close()
            self._end(name, taken, error)

    def _end(self, name: str, taken: Mapping[str, int] | None, error: BaseException) -> None:
        with self._shelf.changed:
            if name in self._withdrawn:
                del self._withdrawn[name]
                taken, error = None, _unloaded_meanwhile(name)
            elif taken is None:
                self.errors[name] = str(error)
            self._shelf.residency.end(name, self._shelf.clock(), taken)
            if taken is None:
                self._shelf.clusters.pop(name, None)
            asked = self._asked.pop(name, None)
            self._shelf.changed.notify_all()
        if asked is not None:
            resolve(asked, None if taken is not None else error)

    def _started(self, loadable: Loadable) -> Cluster:
        """The model's cluster, for which as few others as possible were unloaded. Where busy ones
        are in the way it waits for them.

        Raises:
            NoRoomError: It does not fit beside those that stay.
            TbclusterError: It cannot be loaded for another reason.
        """
        give_up_at = time.monotonic() + self._room_wait_s
        while True:
            refused: DoesNotFitError | None = None
            with self._shelf.changed:
                ways, idle = self._shelf.residency.ways(), self._shelf.residency.idle()
            for victims in ways:
                try:
                    return self._start(loadable, victims)
                except DoesNotFitError as error:
                    refused = error
                    with self._shelf.changed:
                        del self._shelf.clusters[loadable.name]
            if not self._await_room(loadable.name, idle, give_up_at):
                raise self._no_room(loadable.name, refused)

    def _await_room(self, name: str, idle: tuple[str, ...], give_up_at: float) -> bool:
        """Wait until others are idle than these; False if that will not be, or takes too long."""
        shelf = self._shelf

        def is_over() -> bool:
            return shelf.is_closed or name in self._withdrawn or not shelf.residency.may_get_room()

        def is_news() -> bool:
            return shelf.residency.idle() != idle or is_over()

        with shelf.changed:
            if is_over():
                # The one that was waited for may have become idle, or gone, at this moment.
                return shelf.residency.idle() != idle and not shelf.is_closed
            return shelf.changed.wait_for(is_news, give_up_at - time.monotonic())

    def _start(self, loadable: Loadable, victims: tuple[str, ...]) -> Cluster:
        """Plan as if the victims were gone; once there is a plan they go, and then it is loaded."""
        shelf, name = self._shelf, loadable.name
        with shelf.changed:
            taken = shelf.residency.taken(without=victims)
        cluster = self._make(
            loadable.source, taken_bytes=taken, on_plan=lambda _: shelf.make_room(victims)
        )
        with shelf.changed:
            is_wanted = not shelf.is_closed and name not in self._withdrawn
            shelf.clusters[name] = cluster
        if not is_wanted:
            raise ClusterClosedError("the server is shutting down")
        return cluster.start()

    def _no_room(self, name: str, refused: DoesNotFitError | None) -> TbclusterError:
        residency = self._shelf.residency
        with self._shelf.changed:
            loaded = {other: r.taken for other, r in residency.loaded.items()}
        if refused is not None and not loaded:
            return refused
        beside = sizes_in_words(loaded)
        advice = "unload one with `tbcluster unload NAME`, or let idle ones go (--switch)"
        if refused is None:
            most = residency.rules.max_loaded
            return NoRoomError(
                f"{name}: at most {most} models are loaded at once (--models-max), and there are "
                f"{beside}: {advice}"
            )
        return NoRoomError(f"{name} does not fit beside {beside}: {refused}; {advice}")


def _has_failed(cluster: Cluster) -> bool:
    return cluster.status().state in (ClusterState.FAILED, ClusterState.CLOSED)


def _unloaded_meanwhile(name: str) -> ClusterClosedError:
    return ClusterClosedError(f"{name} was unloaded before it was loaded")
