"""Asks every part of a server how it is."""

import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.energy.watch import EnergyWatch
from tbcluster.cluster.models.models import Models
from tbcluster.errors import ClusterClosedError, RackError
from tbcluster.machine import RackView
from tbcluster.server.live.facts import Facts, ModelFacts

# Which models can be asked for is read from folders.
NAMES_EVERY_S = 10.0


class Looker:
    """Gathers the facts of a view; for one thread.

    Args:
        word: The server's state, as `/health` says it.
        rack: The rack as its coordinator sees it; None for one machine alone.
        energy: Knows what nodes draw, and this machine where there is no rack.
    """

    def __init__(
        self,
        models: Models,
        word: Callable[[], str],
        energy: EnergyWatch,
        rack: Callable[[], RackView] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._word = word
        self._rack = rack
        self._energy = energy
        self._clock = clock
        self._version = version("tbcluster")
        self._names: tuple[str, ...] = ()
        self._names_at: float | None = None

    def __call__(self) -> Facts:
        """Everything, now."""
        here = self._energy.here
        return Facts(
            at=time.time(),
            now=self._clock(),
            version=self._version,
            state=self._word(),
            doing=self._models.status().doing,
            default_model=self._models.default,
            loadable=self._loadable(),
            models={name: _facts(cluster) for name, cluster in self._models.begun().items()},
            rack=self._view(),
            here=tuple(here.nodes()) if here is not None else (),
            power=self._energy.watts(),
            joules_per_token=self._energy.joules_per_token(),
        )

    def _view(self) -> RackView | None:
        # It is brought up, or ends.
        with suppress(RackError, ClusterClosedError):
            return self._rack() if self._rack is not None else None
        return None

    def _loadable(self) -> tuple[str, ...]:
        now = self._clock()
        if self._names_at is None or now - self._names_at >= NAMES_EVERY_S:
            self._names, self._names_at = tuple(self._models.names()), now
        return self._names


def _facts(cluster: Cluster) -> ModelFacts:
    status, plan = cluster.status(), cluster.plan
    # It has no engine before it is loaded, and none after.
    with suppress(ClusterClosedError):
        return ModelFacts(status, cluster.statistics(), plan, cluster.context_length)
    return ModelFacts(status, plan=plan)
