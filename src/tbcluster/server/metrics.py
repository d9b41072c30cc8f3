"""What is measured of the server, for Prometheus."""

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.energy.book import Energy
from tbcluster.cluster.energy.ledger import Bill
from tbcluster.cluster.energy.watch import EnergyWatch
from tbcluster.cluster.energy.work import MICROSECONDS
from tbcluster.core import Output
from tbcluster.server.cluster_metrics import ClusterCollector
from tbcluster.server.energy_metrics import EnergyCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Upper bounds in seconds.
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)
_GAP = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_DURATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600, 1800)


class Metrics:
    """The server's own registry: what requests took, and what the engines count.

    Args:
        clusters: Tells those that are loaded, by their models' names.
        energy: Knows what requests cost; None where nobody counts.
    """

    def __init__(
        self,
        clusters: Callable[[], Mapping[str, Cluster]],
        clock: Callable[[], float] = time.monotonic,
        energy: EnergyWatch | None = None,
    ) -> None:
        self.clock = clock
        self.energy = energy
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tbcluster_requests",
            "Requests for answers that have ended, by how: ok, cancelled or error.",
            ["endpoint", "model", "outcome"],
            registry=self._registry,
        )
        self._rejected = Counter(
            "tbcluster_rejected",
            "Requests that were refused, by the error's code or its HTTP status.",
            ["reason"],
            registry=self._registry,
        )
        self._duration = self._histogram(
            "request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            _DURATION,
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            _FIRST_TOKEN,
        )
        self._gap = self._histogram(
            "time_per_output_token_seconds", "Between a choice's token and its next one.", _GAP
        )
        self._registry.register(ClusterCollector(clusters))
        if energy is not None:
            self._registry.register(EnergyCollector(energy))

    def begin(
        self,
        endpoint: str,
        model: str,
        arrived_at: float | None = None,
        *,
        key: str | None = None,
    ) -> "RequestTimer":
        """Time a request that came at `arrived_at` on the clock, or has just come; `key` is the
        name of the one that it came with."""
        return RequestTimer(
            self.clock,
            self.clock() if arrived_at is None else arrived_at,
            self._first_token.labels(endpoint, model),
            self._gap.labels(endpoint, model),
            partial(self._end, endpoint, model),
            partial(self._price, model, key),
        )

    def reject(self, reason: str) -> None:
        """Count a request that was refused."""
        self._rejected.labels(reason).inc()

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _end(self, endpoint: str, model: str, outcome: str, duration_s: float) -> None:
        self._requests.labels(endpoint, model, outcome).inc()
        self._duration.labels(endpoint, model).observe(duration_s)

    def _price(self, model: str, key: str | None, outputs: Collection[Output]) -> Energy | None:
        """Have a request paid for, given the last output of each choice."""
        if self.energy is None or not outputs:
            return None
        compute_us = sum(output.compute_us for output in outputs)
        num_tokens = sum(output.num_generated_tokens for output in outputs)
        began_at = min(output.started_at for output in outputs)
        ended_at = max(output.emitted_at for output in outputs)
        bill = Bill(model, key, compute_us / MICROSECONDS, num_tokens, ended_at)
        self.energy.ledger.enter(bill)
        return self.energy.request_joules(model, compute_us, began_at, ended_at)

    def _histogram(self, name: str, words: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"tbcluster_{name}",
            words,
            ["endpoint", "model"],
            registry=self._registry,
            buckets=bounds,
        )


class RequestTimer:
    """Follows one request; `output` is called for every token and must cost next to nothing."""

    def __init__(
        self,
        clock: Callable[[], float],
        begun_at: float,
        first_token: Histogram,
        gap: Histogram,
        on_end: Callable[[str, float], None],
        price: Callable[[Collection[Output]], Energy | None],
    ) -> None:
        self._clock = clock
        self._first_token = first_token
        self._gap = gap
        self._on_end: Callable[[str, float], None] | None = on_end
        self._price = price
        self._begun_at = begun_at
        # Of each choice.
        self._newest: dict[int, Output] = {}

    @property
    def elapsed_s(self) -> float:
        """Since the request's arrival."""
        return self._clock() - self._begun_at

    def output(self, output: Output, choice: int = 0) -> None:
        """Note an output of a choice."""
        newest = self._newest.get(choice)
        if newest is None:
            if not self._newest:
                self._first_token.observe(self._clock() - self._begun_at)
        elif (num_tokens := output.num_generated_tokens - newest.num_generated_tokens) > 0:
            self._gap.observe((output.emitted_at - newest.emitted_at) / num_tokens)
        self._newest[choice] = output

    def end(self, outcome: str) -> Energy | None:
        """Count the request as "ok", "cancelled" or "error"; only the first call does, and tells
        what the request cost where that is known."""
        if self._on_end is None:
            return None
        self._on_end(outcome, self.elapsed_s)
        self._on_end = None
        return self._price(self._newest.values())
