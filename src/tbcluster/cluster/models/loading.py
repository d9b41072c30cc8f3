"""Loads models, one at a time, in the order in which they were asked for."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Protocol

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.desired import DesiredModels
from tbcluster.cluster.models.catalogue import Loadable
from tbcluster.cluster.models.futures import done, in_thread, new_future, resolve
from tbcluster.cluster.models.memory import sizes_in_words
from tbcluster.cluster.models.shelf import CLOSE_PATIENCE_S, Shelf
from tbcluster.cluster.saved_preparation import SavedPreparation
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
        loadable: Loadable,
        *,
        taken_bytes: Mapping[str, int],
        taken_now: Callable[[], Mapping[str, int]],
        saved: SavedPreparation | None,
        on_plan: Callable[[Plan], None],
        on_replanned: Callable[[], None],
    ) -> Cluster:
        """The cluster, planned beside what others take, by node, or placed as it was; `on_plan` is
        called with its plan before any of it is loaded, `on_replanned` whenever it has changed."""
        ...


class Loader:
    """Puts models on the shelf. Whoever loads holds the turn: the loader's own thread, or one that
    wants to load in its own (`load_now`).

    Args:
        room_wait_s: How long a model waits for busy ones that are in its way.
        desired: Keeps what is loaded for a coordinator that comes after this one.
    """

    def __init__(
        self,
        shelf: Shelf,
        make: MakeCluster,
        room_wait_s: float,
        on_note: Callable[[str], None] = lambda _: None,
        desired: DesiredModels | None = None,
    ) -> None:
        self.errors: dict[str, str] = {}
        self._shelf = shelf
        self._make = make
        self._room_wait_s = room_wait_s
        self._on_note = on_note
        self._desired = desired
        self._wanted: dict[str, Loadable] = {}
        self._asked: dict[str, Future[None]] = {}
        # Of the load that was given up, until it has ended.
        self._ended: Future[None] = done()
        self._is_closing = False
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="tbcluster-loader", daemon=True)

    def start(self) -> None:
        """Load in a thread what is asked for."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread, once the shelf is closed; not for ever, since a download cannot be
        interrupted."""
        if self.is_running:
            self._thread.join(CLOSE_PATIENCE_S)

    @property
    def is_running(self) -> bool:
        """Whether the thread has been started and has not ended."""
        return self._thread.is_alive()

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
            is_there = is_there or name == self._shelf.residency.loading
            return self._wanted.get(name) if is_there else None

    def held(self) -> list[Loadable]:
        """The models that are loaded, wanted or leave, wherever their files are by now."""
        with self._shelf.changed:
            return [loadable for name, loadable in self._wanted.items() if self.known(name)]

    def asked(self, name: str) -> "Future[None] | None":
        """What those wait for who wait for this model; None if nobody does."""
        with self._shelf.changed:
            return self._asked.get(name)

    def withdraw(self, name: str) -> None:
        """Take a model out of the queue, if it is there; who waits for it is told."""
        with self._shelf.changed:
            if self._shelf.residency.withdraw(name):
                self._tell(name, _unloaded_meanwhile(name))

    def stop(self, name: str) -> "Future[None]":
        """Give up the load of this model, which is under way; the result is there when it has
        ended. It may be asked for again at once."""
        shelf = self._shelf
        with shelf.changed:
            if shelf.residency.stop():
                self._ended = new_future()
                self._tell(name, _unloaded_meanwhile(name))
                cluster = shelf.clusters.get(name)
                if cluster is not None:
                    self._is_closing = True
                    in_thread(lambda: self._close(cluster))
                shelf.changed.notify_all()
            return self._ended

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
        """Wait until a model's turn has come; False in the end."""
        shelf = self._shelf
        with shelf.changed:
            shelf.changed.wait_for(
                lambda: shelf.is_closed or shelf.residency.next_load() is not None
            )
            return not shelf.is_closed

    def _load(self, name: str) -> None:
        """Load a queued model, and tell those who wait for it."""
        with self._shelf.changed:
            if not self._shelf.residency.is_queued(name):
                return  # nobody wants it any more
            self._shelf.residency.begin(name)
        error: BaseException = ClusterClosedError(f"loading {name} was interrupted")
        taken = None
        try:
            cluster = self._started(self._wanted[name])
            taken = cluster.preparation.taken_bytes()
            self._keep(name, cluster)
        except TbclusterError as raised:
            error = raised
        except Exception as raised:  # the top of a load: others must not wait for it for ever
            logger.exception("loading %s failed", name)
            error = ModelError(f"loading {name} failed: {raised}")
        finally:
            if taken is None and (left := self._shelf.clusters.get(name)) is not None:
                left.close()
            self._end(name, taken, error)

    def _end(self, name: str, taken: Mapping[str, int] | None, error: BaseException) -> None:
        shelf = self._shelf
        with shelf.changed:
            # It may have been given up at the last moment.
            shelf.changed.wait_for(lambda: not self._is_closing)
            was_stopped = shelf.residency.is_stopped
            taken = None if was_stopped else taken
            shelf.residency.end(name, shelf.clock(), taken)
            if taken is None:
                shelf.clusters.pop(name, None)
            if was_stopped:
                self._forget(name)
                resolve(self._ended)  # whoever waits now has asked since
            else:
                self._keep_error(name, None if taken is not None else error)
                # With the lock held: what waits for the model uses it before it can leave again.
                self._tell(name, None if taken is not None else error)
            shelf.changed.notify_all()

    def _keep_error(self, name: str, error: BaseException | None) -> None:
        if error is not None:
            self.errors[name] = str(error)

    def _tell(self, name: str, error: BaseException | None) -> None:
        """Tell those who wait for a model."""
        if (asked := self._asked.pop(name, None)) is not None:
            resolve(asked, error)

    def _close(self, cluster: Cluster) -> None:
        """End the `start` that the loading thread is in, which takes its time."""
        try:
            cluster.close()
        finally:
            with self._shelf.changed:
                self._is_closing = False
                self._shelf.changed.notify_all()

    def _started(self, loadable: Loadable) -> Cluster:
        """The model's cluster, for which as few others as possible were unloaded. Where busy ones
        are in the way it waits for them.

        Raises:
            NoRoomError: It does not fit beside those that stay.
            TbclusterError: It cannot be loaded for another reason.
        """
        shelf, residency = self._shelf, self._shelf.residency
        give_up_at = time.monotonic() + self._room_wait_s
        while True:
            refused: DoesNotFitError | None = None
            with shelf.changed:
                shelf.changed.wait_for(lambda: not residency.is_any_leaving or self._is_given_up())
                if self._is_given_up():
                    raise _given_up()
                ways, before = residency.ways(), residency.in_the_way()
            for victims in ways:
                try:
                    return self._start(loadable, victims)
                except DoesNotFitError as error:
                    refused = error
                    with shelf.changed:
                        del shelf.clusters[loadable.name]
                        if set(victims) >= set(residency.loaded):
                            raise  # not even alone: nobody has to go, or to be waited for
            if not self._await_room(before, give_up_at):
                raise self._no_room(loadable.name, refused)

    def _await_room(self, before: tuple[tuple[str, bool], ...], give_up_at: float) -> bool:
        """Wait until something else is in the way; False if that will not be, or takes too long."""
        shelf, residency = self._shelf, self._shelf.residency

        def is_news() -> bool:
            return residency.in_the_way() != before or self._is_given_up()

        with shelf.changed:
            if not is_news() and not residency.may_get_room():
                return False
            left_s = give_up_at - time.monotonic()
            return shelf.changed.wait_for(is_news, left_s) or residency.is_any_leaving

    def _is_given_up(self) -> bool:
        return self._shelf.is_closed or self._shelf.residency.is_stopped

    def _start(self, loadable: Loadable, victims: tuple[str, ...]) -> Cluster:
        """Plan as if the victims were gone; once there is a plan they go, and then it is loaded."""
        shelf, name = self._shelf, loadable.name
        with shelf.changed:
            taken = shelf.residency.taken(without=victims)
        cluster = self._make(
            loadable,
            taken_bytes=taken,
            taken_now=lambda: shelf.taken_by_others(name),
            saved=self._desired.saved(name) if self._desired is not None else None,
            on_plan=lambda _: shelf.make_room(victims),
            on_replanned=lambda: self._replanned(name),
        )
        with shelf.changed:
            shelf.clusters[name] = cluster
            if self._is_given_up():
                raise _given_up()
        try:
            return cluster.start()
        except ClusterClosedError:
            raise
        except TbclusterError as error:
            desired = self._desired
            # With a rack that is left to another coordinator nothing can be loaded.
            if desired is None or desired.is_sealed or not cluster.preparation.is_restored:
                raise
            self._on_note(f"{name} cannot be loaded as it was, so it is planned anew: {error}")
            desired.forget_preparation(name)
        return self._start(loadable, victims)

    def _replanned(self, name: str) -> None:
        """A recovery has placed a model that is loaded anew."""
        with self._shelf.changed:
            is_loaded = self._shelf.is_loaded(name)
            cluster = self._shelf.clusters.get(name)
        if is_loaded and cluster is not None:
            taken = cluster.preparation.taken_bytes()
            with self._shelf.changed:
                self._shelf.residency.hold(name, taken)
                self._keep(name, cluster)

    def _keep(self, name: str, cluster: Cluster) -> None:
        if self._desired is not None:
            self._desired.keep(name, cluster.to_save())

    def _forget(self, name: str) -> None:
        if self._desired is not None:
            self._desired.forget(name, is_on_purpose=True)

    def _no_room(self, name: str, refused: DoesNotFitError | None) -> TbclusterError:
        residency = self._shelf.residency
        with self._shelf.changed:
            loaded = {other: r.taken for other, r in residency.loaded.items()}
            makes_room = residency.makes_room
        if refused is not None and refused.missing_bytes > sum(
            sum(t.values()) for t in loaded.values()
        ):
            # Not even alone. What it has is told beside the others.
            return DoesNotFitError(
                f"{refused.message}; unloading others would not help",
                refused.missing_bytes,
                refused.remedies,
            )
        beside = sizes_in_words(loaded)
        advice = "unload one with `tbcluster unload NAME`"
        advice += (
            " (--force ends its requests)" if makes_room else ", or let idle ones go (--switch)"
        )
        if refused is None:
            most = residency.rules.max_loaded
            return NoRoomError(
                f"{name}: at most {most} models are loaded at once (--models-max), and there are "
                f"{beside}: {advice}"
            )
        why = str(refused).removeprefix(f"{name} does not fit: ")
        return NoRoomError(f"{name} does not fit beside {beside}: {why}; {advice}")


def _has_failed(cluster: Cluster) -> bool:
    return cluster.status().state in (ClusterState.FAILED, ClusterState.CLOSED)


def _given_up() -> ClusterClosedError:
    return ClusterClosedError("the server is shutting down")


def _unloaded_meanwhile(name: str) -> ClusterClosedError:
    return ClusterClosedError(f"{name} was unloaded before it was loaded")
