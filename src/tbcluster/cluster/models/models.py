"""The models of one server: what requests, commands and status pages ask of them."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Self

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.desired import DesiredModels
from tbcluster.cluster.models.catalogue import Catalogue, Loadable
from tbcluster.cluster.models.futures import done, new_future
from tbcluster.cluster.models.loading import Loader, MakeCluster
from tbcluster.cluster.models.residency import ModelState, Rules
from tbcluster.cluster.models.shelf import Shelf, Use
from tbcluster.cluster.models.views import ModelView, joined
from tbcluster.cluster.status import ClusterState, ClusterStatus, serving
from tbcluster.errors import (
    ClusterClosedError,
    ModelNotLoadedError,
    PlanError,
    TbclusterError,
    UnknownModelError,
)
from tbcluster.machine import NodeView, Serving

logger = logging.getLogger(__name__)


class Models:
    """Models that are loaded and unloaded while requests run, as a context manager. Thread-safe.

    Args:
        catalogue: Those that can be loaded.
        make: Makes the cluster of one.
        drain_s: How long running requests may take to finish when their model is unloaded, or is in
            the way of another.
        first_words: What is being done before the first model is begun.
        on_note: Called with each line a user should see.
        desired: Keeps what is loaded for a coordinator that comes after this one.
        clock: Seconds.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        make: MakeCluster,
        rules: Rules | None = None,
        *,
        drain_s: float = 30.0,
        first_words: str = "opening the model",
        on_note: Callable[[str], None] = lambda _: None,
        desired: DesiredModels | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules or Rules()
        self.created_at = time.time()
        self._catalogue = catalogue
        self._first_words = first_words
        self._is_starting = True
        note = partial(_noted, on_note)
        self._desired = desired
        self._shelf = Shelf(self.rules, drain_s, note, self._forget, clock)
        self._loader = Loader(self._shelf, make, drain_s, note, desired)

    @classmethod
    def of(cls, cluster: Cluster) -> Self:
        """One model, whose cluster the caller starts and closes; no other is loaded."""
        loadable = Loadable(cluster.model_name, None)
        models = cls(Catalogue((loadable,)), _never)
        residency = models._shelf.residency
        models._shelf.clusters[loadable.name] = cluster
        residency.ask(loadable.name, makes_room=False)
        residency.begin(loadable.name)
        residency.end(loadable.name, models._shelf.clock(), {})
        models._is_starting = False
        return models

    # Life

    def start(self) -> Self:
        """Let models be loaded when someone asks for them, and go when nobody does."""
        self._is_starting = False
        self._shelf.start()
        self._loader.start()
        return self

    def close(self) -> None:
        """End all models; who waits for one stops waiting."""
        self._shelf.close()
        self._loader.join()
        self._loader.stop_all("the server is shutting down")

    @property
    def is_stuck(self) -> bool:
        """Whether a load has not ended, though all were told to."""
        return self._shelf.is_closed and self._loader.is_running

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def end_requests(self, reason: str) -> None:
        """End every request and every wait, open or yet to come; `close` is still due."""
        self._shelf.end_requests(reason)
        self._loader.stop_all(reason)

    # Loading and unloading

    def load_now(self, name: str) -> Cluster:
        """Load a model in this thread.

        Raises:
            TbclusterError: It cannot be loaded, for this reason.
        """
        self._loader.load_now(self._find(name))
        with self._shelf.changed:
            return self._shelf.clusters[name]

    def ask(self, name: str, *, makes_room: bool = False) -> "Future[None]":
        """Have a model loaded when its turn comes. The result is there once it is loaded, or is the
        reason why it is not. It may read folders: call it outside the event loop.

        Args:
            makes_room: Whether idle models may be unloaded for it.

        Raises:
            UnknownModelError: There is no such model.
            ClusterClosedError: Nothing is loaded any more.
        """
        return self._loader.ask(self._find(name), makes_room=makes_room)

    def unload(self, name: str, *, force: bool = False) -> "Future[None]":
        """Unload a model, or stop loading it. The result is there once its memory is free.

        Args:
            force: End its requests at once; otherwise they may take `drain_s` to finish.

        Raises:
            UnknownModelError: There is no such model.
        """
        self._find(name)
        if self._desired is not None:
            self._desired.forget(name, is_on_purpose=True)
        with self._shelf.changed:
            self._loader.withdraw(name)
            if name == self._shelf.residency.loading:
                return self._loader.stop(name)
            if name in self._shelf.residency.loaded:
                return self._shelf.leave(name, force=force)
            return done()

    def wanted(self) -> list[str]:
        """What is to be loaded at the beginning: the models that were given, but for those that
        were unloaded on purpose when a coordinator before this one ended; then what else it had
        loaded. It may read folders."""
        given, desired = [loadable.name for loadable in self._catalogue.given], self._desired
        if desired is None:
            return given
        wanted = [name for name in given if not desired.is_unloaded(name)]
        for name in desired.names:
            if name not in given and self._catalogue.find(name) is not None:
                wanted.append(name)
            elif name not in given:
                desired.forget(name)
        return wanted

    def may_lose(self, node: str, usable: Sequence[NodeView]) -> str | None:
        """Why what is loaded would not fit without this node; None if it would.

        Args:
            usable: The nodes that may be given stages.
        """
        with self._shelf.changed:
            taken = {name: of.taken for name, of in self._shelf.residency.loaded.items()}
        for name, cluster in self._shelf.loaded().items():
            if node not in taken.get(name, {}):
                continue
            beside: Counter[str] = Counter()
            for other, sizes in taken.items():
                beside.update(sizes if other != name else {})
            try:
                taken[name] = cluster.preparation.taken_without(node, usable, beside)
            except PlanError as error:
                return f"{name} would not fit without {node}: {error}"
        return None

    # Using

    def use(self, name: str) -> Use | None:
        """The model for a request, which ends the use; None if it is not loaded."""
        return self._shelf.use(name)

    def ask_for_use(self, name: str) -> "Future[Use]":
        """Like `ask`, for a request. The result is in use already, so that no other model's load
        makes it go before the request begins: whoever asks has to end the use.

        Raises:
            UnknownModelError: There is no such model.
            ModelNotLoadedError: It is not loaded, and requests load none.
        """
        loadable = self._find(name)
        used: Future[Use] = new_future()
        if self.rules.loads_on_use:
            self._load_for(loadable, used)
        elif (asked := self._loader.asked(name)) is not None:
            asked.add_done_callback(lambda loaded: self._hand_over(loadable, loaded, used))
        else:
            raise ModelNotLoadedError(name)
        return used

    def _load_for(self, loadable: Loadable, used: "Future[Use]") -> None:
        asked = self._loader.ask(loadable, makes_room=True)
        asked.add_done_callback(lambda loaded: self._hand_over(loadable, loaded, used))

    def _hand_over(self, loadable: Loadable, loaded: "Future[None]", used: "Future[Use]") -> None:
        try:
            loaded.result()
            use = self.use(loadable.name)
            if use is not None:
                used.set_result(use)
            elif self.rules.loads_on_use:
                self._load_for(loadable, used)  # it went for another one at this moment
            else:
                raise ModelNotLoadedError(loadable.name)
        except TbclusterError as error:
            used.set_exception(error)

    # What is

    def names(self) -> list[str]:
        """All that can be asked for. It may read folders."""
        return list(self._catalogue.all())

    @property
    def default(self) -> str | None:
        """The model of a request that names none: the first that was given, where there is one,
        else the first that is loaded."""
        if self._catalogue.given:
            return self._catalogue.given[0].name
        with self._shelf.changed:
            return next(iter(self._shelf.residency.loaded), None)

    @property
    def is_alone(self) -> bool:
        """Whether there is one model and never another."""
        return self._catalogue.is_single

    def clusters(self) -> dict[str, Cluster]:
        """Those that are loaded, by their models' names."""
        return self._shelf.loaded()

    def begun(self) -> dict[str, Cluster]:
        """Those that are loaded or are being loaded."""
        with self._shelf.changed:
            return dict(self._shelf.clusters)

    @property
    def is_loading(self) -> bool:
        """Whether a model is being loaded, or waits for its turn."""
        with self._shelf.changed:
            return self._shelf.residency.is_any_wanted

    def status(self) -> ClusterStatus:
        """What the default model's cluster is doing, or what is done until there is one."""
        name = self.default or ""
        with self._shelf.changed:
            cluster = self._shelf.clusters.get(name)
            is_closed = self._shelf.is_closed
        if cluster is not None:
            return cluster.status()
        state = ClusterState.CLOSED if is_closed else ClusterState.STARTING
        doing = self._first_words if self._is_starting else None
        return ClusterStatus(state, name, (), 0, self._loader.errors.get(name), doing)

    def serving(self) -> Serving | None:
        """What a rack tells of all that is loaded or being loaded."""
        return joined([serving(cluster.status()) for cluster in self.begun().values()])

    def view(self, name: str) -> ModelView:
        """One model. It may read folders.

        Raises:
            UnknownModelError: There is no such model.
        """
        return self._view(self._find(name))

    def views(self) -> list[ModelView]:
        """All models that can be asked for. It may read folders."""
        listed = self._catalogue.all()
        for loadable in self._loader.held():
            listed.setdefault(loadable.name, loadable)
        return [self._view(loadable) for loadable in listed.values()]

    def loaded_views(self) -> list[ModelView]:
        """Those that are loaded. It may read folders."""
        with self._shelf.changed:
            loaded = set(self._shelf.residency.loaded)
        return [view for view in self.views() if view.name in loaded]

    def _view(self, loadable: Loadable) -> ModelView:
        name, shelf = loadable.name, self._shelf
        with shelf.changed:
            state = shelf.residency.state(name)
            cluster = shelf.clusters.get(name)
            resident = shelf.residency.loaded.get(name)
            expires_at = shelf.residency.expires_at(name)
            now = shelf.clock()
        status = cluster.status() if cluster is not None else None
        if status is not None:
            doing, error = status.doing, status.error
        else:
            is_waiting = state is ModelState.LOADING
            doing = "waiting for its turn" if is_waiting else None
            error = None if is_waiting else self._loader.errors.get(name)
        return ModelView(
            loadable,
            state,
            cluster if resident is not None else None,
            doing,
            error,
            has_failed=error is not None
            and (status is None or status.state is ClusterState.FAILED),
            num_uses=resident.num_uses if resident is not None else 0,
            expires_in_s=None if expires_at is None else max(0.0, expires_at - now),
        )

    def _forget(self, name: str) -> None:
        """It was unloaded, for whatever reason."""
        if self._desired is not None:
            self._desired.forget(name)

    def _find(self, name: str) -> Loadable:
        found = self._loader.known(name) or self._catalogue.find(name)
        if found is None:
            raise UnknownModelError(name, *self.names())
        return found


def _noted(on_note: Callable[[str], None], line: str) -> None:
    """Tell a line; the thread that does goes on though nobody hears it."""
    try:
        on_note(line)
    except Exception:  # whatever the caller's function raises
        logger.exception("%s: this could not be told", line)


def _never(loadable: Loadable, **_: object) -> Cluster:
    raise ClusterClosedError(f"{loadable.name} was unloaded, and is not loaded here again")
