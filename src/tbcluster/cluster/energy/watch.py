"""Looks once a second at what nodes draw and models do, and keeps the books."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.energy.book import Energy, EnergyBook
from tbcluster.cluster.energy.estimates import Estimates
from tbcluster.cluster.energy.ledger import Ledger
from tbcluster.cluster.energy.this_machine import ThisMachine
from tbcluster.cluster.energy.work import MICROSECONDS, ModelWork, WorkCount
from tbcluster.errors import ClusterClosedError, RackError
from tbcluster.machine import NodeState, NodeView

logger = logging.getLogger(__name__)

EVERY_S = 1.0
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class NodeWatts:
    """What a node draws; `source` is its meter's name, or "estimate"."""

    watts: float
    source: str


class EnergyWatch:
    """A thread that looks, from `start` to `close`. No request waits for it.

    Args:
        clusters: Tells those that are loaded, by their models' names.
        nodes: Tells the rack's nodes; None for this machine alone.
        clock: That of requests' outputs, seconds.

    Attributes:
        here: This machine, where there is no rack.
        started_at: Unix time, seconds.
    """

    def __init__(
        self,
        clusters: Callable[[], Mapping[str, Cluster]],
        nodes: Callable[[], Sequence[NodeView]] | None = None,
        *,
        here: ThisMachine | None = None,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = EVERY_S,
    ) -> None:
        self.book = EnergyBook()
        self.ledger = Ledger()
        self.here = (here or ThisMachine()) if nodes is None else None
        self.started_at = time.time()
        self._clusters = clusters
        self._nodes = nodes
        self._clock = clock
        self._every_s = every_s
        self._work = WorkCount()
        self._estimates = Estimates()
        self._looked_at: float | None = None
        self._were_at_rest: set[str] = set()
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)

    def start(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop looking."""
        self._is_ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def watts(self) -> dict[str, NodeWatts]:
        """What the nodes draw of which that is known, by name."""
        return {
            name: NodeWatts(node.watts, node.source)
            for name, node in self.book.nodes().items()
            if node.watts is not None
        }

    def joules_per_token(self) -> float | None:
        """Of what all models generated in the last minute; None where nothing, or not known."""
        now = self._clock()
        return self.book.joules_per_token(now - MINUTE_S, now)

    def request_joules(
        self, model: str, compute_us: int, began_at: float, ended_at: float
    ) -> Energy | None:
        """What a request cost for which stages computed so long, by what the model's serving took
        while it ran; None where that is not known."""
        rate = self.book.per_compute_s(model, began_at, ended_at)
        if rate is None or compute_us <= 0:
            return None
        return Energy(rate.joules * compute_us / MICROSECONDS, rate.is_estimate)

    def sample(self) -> None:
        """Look once. Not thread-safe."""
        if self.here is not None:
            self.here.look()
        now = self._clock()
        models, at_rest = self._models()
        seconds = now - self._looked_at if self._looked_at is not None else 0.0
        self._looked_at = now
        energies = {
            node.name: self._estimates.energy(node, _busy(node.name, models, seconds))
            for node in self._online()
        }
        self.book.add(now, energies, models)
        self._settle(now)
        # A request's end is told here a moment after the engine has forgotten it.
        for model in at_rest & self._were_at_rest:
            self.book.write_off(model)
        self._were_at_rest = at_rest

    def _settle(self, now: float) -> None:
        """Let the requests pay that have ended; those whose joules are not known are let go."""
        for bill in self.ledger.due(now):
            paid = self.book.charge(bill.model, bill.compute_s)
            if paid is not None:
                self.ledger.settle(bill, paid.joules, is_estimate=paid.is_estimate)

    def _online(self) -> list[NodeView]:
        if self._nodes is None:
            return self.here.nodes() if self.here is not None else []
        try:
            return [node for node in self._nodes() if node.state is NodeState.ONLINE]
        except (RackError, ClusterClosedError):  # it is brought up, or ends
            return []

    def _models(self) -> tuple[dict[str, ModelWork], set[str]]:
        """What each model did, and those that have no requests."""
        done: dict[str, ModelWork] = {}
        at_rest: set[str] = set()
        clusters = self._clusters()
        for name, cluster in clusters.items():
            try:
                # First: a request that ends in between is not taken for never having been.
                is_at_rest = cluster.status().num_requests == 0
                statistics, stages = cluster.statistics(), cluster.status().stages
            except ClusterClosedError:
                continue
            done[name] = self._work.since_last(name, stages, statistics)
            if is_at_rest:
                at_rest.add(name)
        self._work.forget_others(clusters)
        return done, at_rest

    def _run(self) -> None:
        due = time.monotonic()
        while not self._is_ended.wait(max(0.0, due - time.monotonic())):
            # A machine that slept has nothing to catch up with.
            due = max(due + self._every_s, time.monotonic())
            try:
                self.sample()
            except Exception:  # what is counted must never end the server that is looked at
                logger.exception("energy could not be counted")
                self._settle(self._clock())
        if self.here is not None:
            self.here.close()


def _busy(node: str, models: Mapping[str, ModelWork], seconds: float) -> float:
    """The share of these seconds in which a stage computed there."""
    if seconds <= 0:
        return 0.0
    computed = (model.nodes[node].compute_s for model in models.values() if node in model.nodes)
    return min(1.0, sum(computed) / seconds)
