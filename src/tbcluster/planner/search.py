"""The best chains on a rack, exactly for few nodes, by orders and local search for many. Pure."""

from collections.abc import Sequence

import numpy as np

from tbcluster.planner.chains import Chain, ChainSearch
from tbcluster.planner.cost import Promise
from tbcluster.planner.orders import fixed_chain, good_orders, improved
from tbcluster.planner.step_costs import RackCosts
from tbcluster.planner.sweep import Level, order_levels, subset_levels

# As many as 8 unequal nodes have; of equal ones there may be more.
MAX_SUBSETS = 1 << 8
MAX_EXACT_NODES = 16
# Of a large rack so many numbers of stages are looked at.
MAX_COUNTS = 7


class Search:
    """Best chains over some nodes of a rack."""

    def __init__(self, costs: RackCosts, nodes: Sequence[int] | None = None) -> None:
        self.costs = costs
        self.nodes = tuple(range(len(costs.nodes))) if nodes is None else tuple(nodes)
        levels = _exact_levels(costs, self.nodes)
        self.is_exact = levels is not None
        if levels is not None:
            self._searches = [ChainSearch(costs, self.nodes, levels, in_order=False)]
        else:
            self._searches = [
                ChainSearch(costs, order, order_levels(len(order)), in_order=True)
                for order in good_orders(costs, self.nodes)
            ]
        self._levels = levels or order_levels(len(self.nodes))
        self._best: dict[tuple[Promise, int], Chain | None] = {}

    @property
    def max_stages(self) -> int:
        """No more than nodes, nor than the model's cuts allow."""
        return min(len(self.nodes), len(self.costs.bounds) - 1)

    def best(
        self, promise: Promise, num_stages: int, slowest_s: float | None = None
    ) -> Chain | None:
        """The best chain of exactly so many stages, each on a node of its own; None if there is
        none.

        Args:
            slowest_s: Its slowest stage or link, if that is known already.
        """
        key = (promise, num_stages)
        if key not in self._best:
            found = [
                self._found(search, promise, num_stages, slowest_s) for search in self._searches
            ]
            chains = [chain for chain in found if chain is not None]
            ranked = min(chains, key=lambda chain: (chain.slowest_s, chain.trip_s), default=None)
            self._best[key] = ranked
        return self._best[key]

    def polished(self, promise: Promise, chain: Chain) -> Chain:
        """The chain after local search, where it may not be the best one yet."""
        return chain if self.is_exact else improved(self.costs, promise, chain, self.nodes)

    def counts(self, promise: Promise) -> list[int]:
        """Numbers of stages worth looking at: all, or some of a large rack."""
        most = self.max_stages
        if self.is_exact:
            return list(range(1, most + 1))
        least = self.least_stages(promise)
        if least is None:
            return []
        spaced = np.geomspace(least, most, MAX_COUNTS).round().astype(int)
        return sorted({least, *map(int, spaced)})

    def least_stages(self, promise: Promise) -> int | None:
        """The fewest stages that the memory allows, going as far as it goes on each node; None if
        it does not fit at all."""
        counts = [search.least_stages(promise) for search in self._searches]
        return min((count for count in counts if count is not None), default=None)

    def classes(self) -> list[list[int]]:
        """Places of the nodes, those of equal nodes together."""
        classes: list[list[int]] = []
        for at, node in enumerate(self.nodes):
            same = next(
                (one for one in classes if self.costs.twins(node, [self.nodes[one[0]]])), None
            )
            if same is None:
                classes.append([at])
            else:
                same.append(at)
        return classes

    def bounds_of_groups(self, promise: Promise, num_stages: int) -> dict[int, tuple[float, float]]:
        """See `ChainSearch`; only where the search is exact."""
        return self._searches[0].bounds_of_groups(promise, num_stages)

    def _found(
        self, search: ChainSearch, promise: Promise, num_stages: int, slowest_s: float | None
    ) -> Chain | None:
        if self.is_exact:
            return search.best(promise, num_stages, slowest_s)
        # Local search shortens the trip anyway: here its nodes are enough.
        nodes = search.nodes_of_slowest(promise, num_stages)
        return None if nodes is None else fixed_chain(self.costs, promise, nodes)


def _exact_levels(costs: RackCosts, nodes: tuple[int, ...]) -> tuple[Level, ...] | None:
    """None if there are too many subsets."""
    if len(nodes) > MAX_EXACT_NODES:
        return None
    twins = tuple(costs.twins(node, nodes[:at]) for at, node in enumerate(nodes))
    return subset_levels(len(nodes), twins) if _num_subsets(twins) <= MAX_SUBSETS else None


def _num_subsets(twins: Sequence[int]) -> int:
    """Subsets that use equal nodes in their order: a class of k nodes gives k + 1 choices."""
    number = 1
    for mask in twins:
        # The n-th of its class turns n choices into n + 1.
        before = mask.bit_count()
        number = number // (before + 1) * (before + 2)
    return number
