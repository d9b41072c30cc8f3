"""What clusters count, read when Prometheus asks for it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TypeVar, cast

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.status import ClusterStatus, RecoveryStats
from tbcluster.engine.statistics import EngineStatistics
from tbcluster.errors import ClusterClosedError

MICROSECONDS = 1e6


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


class ClusterCollector(Collector):
    """Reads the engines' statistics, and what was recovered from, when someone asks for them."""

    def __init__(self, clusters: Callable[[], Mapping[str, Cluster]]) -> None:
        self._clusters = clusters
        self._counters: dict[tuple[str, ...], Monotonic] = {}

    def describe(self) -> list[Metric]:
        """Nothing: the registry would collect at once to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All numbers of the clusters that there are."""
        families: dict[str, Metric] = {}
        for model, cluster in self._clusters().items():
            with suppress(ClusterClosedError):
                self._add_engine(families, model, cluster.statistics())
                self._add_recoveries(families, model, cluster.status())
        yield from families.values()

    def _add_engine(self, families: dict[str, Metric], model: str, now: EngineStatistics) -> None:
        """What one model's engines count, to the families of all."""
        for name, words, value in _totals(now):
            self._count(families, name, words, {"model": model}, value)
        for name, words, value in _levels(now):
            _show(families, name, words, {"model": model}, value)
        for name, words, values in _stage_totals(now):
            for stage, value in enumerate(values):
                labels = {"model": model, "stage": str(stage)}
                self._count(families, name, words, labels, value)
        for name, words, values in _stage_levels(now):
            for stage, value in enumerate(values):
                _show(families, name, words, {"model": model, "stage": str(stage)}, value)

    def _add_recoveries(self, families: dict[str, Metric], model: str, now: ClusterStatus) -> None:
        """What one model was recovered from, to the families of all."""
        recoveries = now.recoveries
        name, words = "recoveries", "Recoveries that have ended, by their kind."
        # Listed before there was any.
        _family(families, CounterMetricFamily, name, words, ["model", "kind"])
        for kind, number in recoveries.num_recoveries.items():
            self._count(families, name, words, {"model": model, "kind": kind}, number)
        for stage in now.stages:
            labels = {"model": model, "stage": str(stage.index)}
            words = "How often a stage was started again."
            self._count(families, "stage_restarts", words, labels, stage.num_restarts)
        for name, words, value in _parity_totals(recoveries):
            self._count(families, name, words, {"model": model}, value)
        self._add_durations(families, model, recoveries)
        words = "Requests that wait for a recovery."
        _show(families, "streams_paused", words, {"model": model}, recoveries.num_paused)

    def _add_durations(
        self, families: dict[str, Metric], model: str, recoveries: RecoveryStats
    ) -> None:
        name, words = "recovery_seconds", "From a loss to the next step."
        summary = _family(families, SummaryMetricFamily, name, words, ["model"])
        summary.add_metric(
            [model],
            int(self._counted((name, "count", model), sum(recoveries.num_recoveries.values()))),
            self._counted((name, "sum", model), recoveries.total_seconds),
        )
        name, words = "last_recovery_seconds", "How long the newest recovery took."
        newest = _family(families, GaugeMetricFamily, name, words, ["model"])
        if recoveries.last_seconds is not None:
            newest.add_metric([model], recoveries.last_seconds)

    def _count(
        self,
        families: dict[str, Metric],
        name: str,
        words: str,
        labels: Mapping[str, str],
        value: float,
    ) -> None:
        counter = _family(families, CounterMetricFamily, name, words, list(labels))
        shown = self._counted((name, *labels.values()), value)
        counter.add_metric(list(labels.values()), shown)

    def _counted(self, key: tuple[str, ...], value: float) -> float:
        return self._counters.setdefault(key, Monotonic()).at_least(value)


F = TypeVar("F", CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily)


def _family(
    families: dict[str, Metric], kind: type[F], name: str, words: str, labels: list[str]
) -> F:
    """The family of this name, made when it is first asked for."""
    family = families.setdefault(name, kind(f"tbcluster_{name}", words, labels=labels))
    return cast(F, family)


def _show(
    families: dict[str, Metric], name: str, words: str, labels: Mapping[str, str], value: float
) -> None:
    gauge = _family(families, GaugeMetricFamily, name, words, list(labels))
    gauge.add_metric(list(labels.values()), value)


def _parity_totals(now: RecoveryStats) -> list[tuple[str, str, float]]:
    return [
        ("parity_checks", "Comparisons of the output.", now.num_parity_checks),
        ("parity_failures", "Those that found a difference.", now.num_parity_failures),
    ]


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
