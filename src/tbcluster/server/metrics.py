"""What is measured of the server, for Prometheus."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tbcluster.cluster.cluster import Cluster
from tbcluster.core import Output
from tbcluster.engine.statistics import EngineStatistics
from tbcluster.errors import ClusterClosedError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MICROSECONDS = 1e6

# Upper bounds in seconds.
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120)
_GAP = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_DURATION = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600, 1800)


class Metrics:
    """The server's own registry: what requests took, and what the engines count.

    Args:
        clusters: Tells those that are loaded, by their models' names.
    """

    def __init__(
        self,
        clusters: Callable[[], Mapping[str, Cluster]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
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
        self._registry.register(_EngineCollector(clusters))

    def begin(self, endpoint: str, model: str, arrived_at: float | None = None) -> "RequestTimer":
        """Time a request that came at `arrived_at` on the clock, or has just come."""
        return RequestTimer(
            self.clock,
            self.clock() if arrived_at is None else arrived_at,
            self._first_token.labels(endpoint, model),
            self._gap.labels(endpoint, model),
            partial(self._end, endpoint, model),
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
    ) -> None:
        self._clock = clock
        self._first_token = first_token
        self._gap = gap
        self._on_end: Callable[[str, float], None] | None = on_end
        self._begun_at = begun_at
        # Choice -> (when its newest output was emitted, how many tokens it had then).
        self._newest: dict[int, tuple[float, int]] = {}

    def output(self, output: Output, choice: int = 0) -> None:
        """Note an output of a choice."""
        newest = self._newest.get(choice)
        if newest is None:
            if not self._newest:
                self._first_token.observe(self._clock() - self._begun_at)
        elif (num_tokens := output.num_generated_tokens - newest[1]) > 0:
            self._gap.observe((output.emitted_at - newest[0]) / num_tokens)
        self._newest[choice] = (output.emitted_at, output.num_generated_tokens)

    def end(self, outcome: str) -> None:
        """Count the request as "ok", "cancelled" or "error"; only the first call does."""
        if self._on_end is not None:
            self._on_end(outcome, self._clock() - self._begun_at)
            self._on_end = None


class Monotonic:
    """A counter that goes on where its source has begun from zero again."""

    def __init__(self) -> None:
        self._base = 0.0
        self._seen = 0.0

    def at_least(self, value: float) -> float:
        """The count, given what the source says now."""
        if value < self._seen:
            self._base += self._seen
        self._seen = value
        return self._base + value


class _EngineCollector(Collector):
    """Reads the engines' statistics when someone asks for them."""

    def __init__(self, clusters: Callable[[], Mapping[str, Cluster]]) -> None:
        self._clusters = clusters
        self._counters: dict[tuple[str, ...], Monotonic] = {}

    def describe(self) -> list[Metric]:
        """Nothing: the registry would collect at once to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All of the engines' numbers, of those that there are."""
        now: dict[str, EngineStatistics] = {}
        for model, cluster in self._clusters().items():
            with suppress(ClusterClosedError):
                now[model] = cluster.statistics()
        families: dict[str, Metric] = {}
        for model, statistics in now.items():
            self._add(families, model, statistics)
        yield from families.values()

    def _add(self, families: dict[str, Metric], model: str, now: EngineStatistics) -> None:
        """What one model counts, to the families of all."""
        for name, words, value in _totals(now):
            counter = _family(families, CounterMetricFamily, name, words, ["model"])
            counter.add_metric([model], self._counted(name, model, "", value))
        for name, words, value in _levels(now):
            _family(families, GaugeMetricFamily, name, words, ["model"]).add_metric([model], value)
        labels = ["model", "stage"]
        for name, words, values in _stage_totals(now):
            counter = _family(families, CounterMetricFamily, name, words, labels)
            for stage, value in enumerate(values):
                counter.add_metric(
                    [model, str(stage)], self._counted(name, model, str(stage), value)
                )
        for name, words, values in _stage_levels(now):
            gauge = _family(families, GaugeMetricFamily, name, words, labels)
            for stage, value in enumerate(values):
                gauge.add_metric([model, str(stage)], value)

    def _counted(self, name: str, model: str, stage: str, value: float) -> float:
        return self._counters.setdefault((name, model, stage), Monotonic()).at_least(value)


F = TypeVar("F", CounterMetricFamily, GaugeMetricFamily)


def _family(
    families: dict[str, Metric], kind: type[F], name: str, words: str, labels: list[str]
) -> F:
    """The family of this name, made when it is first asked for."""
    family = families.setdefault(name, kind(f"tbcluster_{name}", words, labels=labels))
    return cast(F, family)


def _totals(now: EngineStatistics) -> list[tuple[str, str, float]]:
    return [
        ("prompt_tokens", "Prompt tokens of requests that were started.", now.num_prompt_tokens),
        ("cached_prompt_tokens", "Those that known prefixes spared.", now.num_cached_tokens),
        ("generated_tokens", "Tokens that were generated.", now.num_generated_tokens),
        ("preemptions", "Sequences that gave up their KV cache.", now.num_preemptions),
        ("steps", "Micro-batches that went through all stages.", now.num_steps),
        (
            "round_trip_seconds",
            "Of all steps together, from sending to result.",
            now.round_trip_us / MICROSECONDS,
        ),
        (
            "wire_seconds",
            "How much of that no stage computed the step: on a wire or in a stage's queue.",
            now.wire_us / MICROSECONDS,
        ),
        (
            "coordinator_seconds",
            "The coordinator's own time in the token loop.",
            now.own_us / MICROSECONDS,
        ),
    ]


def _levels(now: EngineStatistics) -> list[tuple[str, str, float]]:
    return [
        ("sequences_running", "Sequences that are being computed.", now.num_running),
        ("sequences_waiting", "Sequences in the queue.", now.num_waiting),
        ("known_prefixes", "Prefixes whose KV caches are kept.", now.num_prefixes),
        ("idle_share", "Idle share of the busiest stage, 0 to 1.", now.idle_share),
    ]


def _stage_totals(now: EngineStatistics) -> list[tuple[str, str, list[float]]]:
    return [
        (
            "stage_compute_seconds",
            "Time that a stage computed.",
            [stage.compute_us / MICROSECONDS for stage in now.stages],
        ),
        (
            "stage_wait_seconds",
            "Time that a stage waited for its next step while steps were on their way.",
            [stage.idle_us / MICROSECONDS for stage in now.stages],
        ),
    ]


def _stage_levels(now: EngineStatistics) -> list[tuple[str, str, list[float]]]:
    return [
        (
            "stage_idle_share",
            "Share of the time that a stage had nothing to do, 0 to 1.",
            [stage.idle_share for stage in now.stages],
        ),
        ("kv_used_bytes", "What KV caches hold.", [float(size) for size in now.kv_used_bytes]),
        ("kv_budget_bytes", "What they may hold.", [float(size) for size in now.kv_budget_bytes]),
    ]
