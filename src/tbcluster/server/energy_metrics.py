"""What energy is counted, read when Prometheus asks for it."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tbcluster.cluster.energy.watch import EnergyWatch


class EnergyCollector(Collector):
    """Reads the books of a watch."""

    def __init__(self, watch: EnergyWatch) -> None:
        self._watch = watch

    def describe(self) -> list[Metric]:
        """Nothing: the registry would collect at once to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Of nodes first, then of requests."""
        yield from self._nodes()
        yield from self._requests()

    def _nodes(self) -> Iterator[Metric]:
        watts = GaugeMetricFamily(
            "tbcluster_node_watts", "What a node draws now.", labels=["node", "source"]
        )
        joules = CounterMetricFamily(
            "tbcluster_node_joules", "What it has drawn while it was online.", labels=["node"]
        )
        for name, node in self._watch.book.nodes().items():
            if node.watts is not None:
                watts.add_metric([name, node.source], node.watts)
            joules.add_metric([name], node.joules)
        yield watts
        yield joules

    def _requests(self) -> Iterator[Metric]:
        models, keys = self._watch.ledger.costs()
        by_model = CounterMetricFamily(
            "tbcluster_request_joules", "What requests cost that have ended.", labels=["model"]
        )
        for name, costs in models.items():
            if costs.num_priced_tokens:
                by_model.add_metric([name], costs.joules)
        by_key = CounterMetricFamily(
            "tbcluster_joules_by_key", "The same by the key's name.", labels=["key"]
        )
        tokens = CounterMetricFamily(
            "tbcluster_tokens_by_key", "Tokens that were generated for it.", labels=["key"]
        )
        for name, costs in keys.items():
            tokens.add_metric([name], costs.num_tokens)
            if costs.num_priced_tokens:
                by_key.add_metric([name], costs.joules)
        yield from (by_model, by_key, tokens)
