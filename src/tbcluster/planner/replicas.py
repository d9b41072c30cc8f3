"""How many copies of a model, on which groups of nodes: the most tokens a second. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from tbcluster.core import StageRange
from tbcluster.planner.chains import Chain
from tbcluster.planner.cost import Array, MemoryCosts, Promise, reserve_bytes
from tbcluster.planner.orders import good_orders
from tbcluster.planner.search import Search
from tbcluster.planner.sweep import Indices

# One copy more has to win by more than a prediction's error.
COPY_SLACK = 1.05
# A node more lowers the slowest stage: prompts gain from that, and more streams than were promised.
# That is worth this much of the promised streams' speed.
NODE_SLACK = 1.15
# Of a large rack so many numbers of copies are looked at.
MAX_COUNTS = 5
# Of two groupings that are as fast, the one with fewer nodes.
PER_NODE = 1e-9


@dataclass(frozen=True, slots=True)
class Choice:
    """Chains with what each of them promises, and what they were chosen from.

    Attributes:
        most_tokens_per_s: Of so many replicas, if nothing but that counted.
        by_stages: Of one replica: the best chain of each number of stages that was looked at.
        totals: `most_tokens_per_s` of each number of replicas that was looked at.
    """

    replicas: tuple[tuple[Chain, Promise], ...]
    most_tokens_per_s: float = 0.0
    by_stages: dict[int, Chain] = field(default_factory=dict)
    totals: dict[int, float] = field(default_factory=dict)


def choose(
    search: Search, promise: Promise, num_stages: int | None, num_replicas: int | None
) -> Choice | None:
    """The best replicas; None if the model does not fit.

    Of the numbers of replicas the smallest that is within 5 % of the fastest (see `best_single` for
    one). Several are formed so that their tokens a second are most with as many streams each; then
    streams are shared out by speed.
    """
    counts = _counts(search, promise, num_replicas)
    found: dict[int, Choice] = {}
    for count in counts:
        # What is no more than 5 % faster than fewer copies are changes nothing.
        least = COPY_SLACK * max((c.most_tokens_per_s for c in found.values()), default=0.0)
        choice = (
            best_single(search, promise, num_stages)
            if count == 1
            else best_groups(search, promise, num_stages, count, least)
        )
        if choice is not None:
            found[count] = choice
    if not found:
        return None
    totals = {count: choice.most_tokens_per_s for count, choice in found.items()}
    best = max(totals.values())
    chosen = min(count for count, total in totals.items() if total * COPY_SLACK >= best)
    by_stages = found[1].by_stages if 1 in found else {}
    return replace(found[chosen], by_stages=by_stages, totals=totals)


def best_single(search: Search, promise: Promise, num_stages: int | None) -> Choice | None:
    """One replica: of the numbers of stages whose tokens a second are within 15 % of the best, the
    one with the least slowest stage, then the shortest trip, then the fewest nodes."""
    counts = [num_stages] if num_stages is not None else search.counts(promise)
    found = {count: search.best(promise, count) for count in counts}
    chains = {count: chain for count, chain in found.items() if chain is not None}
    if not chains:
        return None
    best = max(chain.tokens_per_s(promise) for chain in chains.values())
    good = [chain for chain in chains.values() if chain.tokens_per_s(promise) * NODE_SLACK >= best]
    chosen = min(good, key=lambda chain: (chain.slowest_s, chain.trip_s, len(chain.nodes)))
    return Choice(((search.polished(promise, chosen), promise),), best, by_stages=chains)


def best_groups(
    search: Search,
    promise: Promise,
    num_stages: int | None,
    count: int,
    least_tokens_per_s: float = 0.0,
) -> Choice | None:
    """So many replicas on disjoint groups of nodes; None if they do not fit, or are no faster than
    the least."""
    each = replace(promise, streams=-(-promise.streams // count))
    chains = (
        exact_groups(search, each, num_stages, count, least_tokens_per_s)
        if search.is_exact
        else _groups_in_order(search, each, num_stages, count)
    )
    if chains is None:
        return None
    shared = _share_streams(search, promise, chains)
    most = sum(chain.tokens_per_s(own) for chain, own in shared)
    return Choice(shared if num_stages else _with_idle_nodes(search, shared), most)


def _with_idle_nodes(
    search: Search, replicas: Sequence[tuple[Chain, Promise]]
) -> tuple[tuple[Chain, Promise], ...]:
    """As in `best_single`, nodes that are left lower the slowest stage of a replica, as long as its
    streams keep their speed within 15 %."""
    used = {node for chain, _ in replicas for node in chain.nodes}
    chains = [chain for chain, _ in replicas]
    least = [chain.tokens_per_s(promise) / NODE_SLACK for chain, promise in replicas]
    for node in search.nodes:
        if node in used or not search.is_exact:
            continue
        options = []
        for at, (_, promise) in enumerate(replicas):
            nodes = sorted((*chains[at].nodes, node))
            longer = Search(search.costs, nodes).best(promise, len(nodes))
            if (
                longer is not None
                and longer.slowest_s < chains[at].slowest_s
                and longer.tokens_per_s(promise) >= least[at]
            ):
                options.append((chains[at].slowest_s - longer.slowest_s, -at, longer))
        if options:
            _, place, longer = max(options, key=lambda option: option[:2])
            chains[-place] = longer
    return tuple((chain, promise) for chain, (_, promise) in zip(chains, replicas, strict=True))


def max_replicas(search: Search, promise: Promise) -> int:
    """What the memory of all nodes together allows; no more than nodes or streams."""
    profile = search.costs.profile
    whole = StageRange(0, len(profile.layers))
    one = MemoryCosts(profile, replace(promise, streams=1)).of(whole).total_bytes
    nodes = [search.costs.nodes[node] for node in search.nodes]
    room = sum(node.memory_bytes - reserve_bytes(node.memory_bytes) for node in nodes)
    return min(len(nodes), max(1, promise.streams), room // max(1, one))


def _counts(search: Search, promise: Promise, num_replicas: int | None) -> list[int]:
    if num_replicas is not None:
        return [num_replicas]
    most = max(1, max_replicas(search, promise))
    if search.is_exact:
        return list(range(1, most + 1))
    return sorted({1, *map(int, np.geomspace(1, most, MAX_COUNTS).round())})


def exact_groups(
    search: Search,
    each: Promise,
    num_stages: int | None,
    count: int,
    least_tokens_per_s: float = 0.0,
) -> list[Chain] | None:
    """The groups with the most tokens a second; None if they have no more than the least.

    A group's slowest stage and shortest trip bound its speed from above. The best grouping by these
    bounds has its groups searched exactly, until it is the best with exact speeds.
    """
    groups = _Groups(search)
    sizes = range(1, len(search.nodes) - count + 2) if num_stages is None else [num_stages]
    for size in sizes:
        if size <= search.max_stages:
            lanes = each.num_lanes(size)
            for mask, (slowest, trip) in search.bounds_of_groups(each, size).items():
                groups.slowest[mask] = slowest
                groups.bound(mask, each.streams / max(trip, lanes * slowest))
    while True:
        masks = groups.best(count, least_tokens_per_s)
        if masks is None:
            return None
        unknown = [mask for mask in masks if mask not in groups.chains]
        if not unknown:
            return [
                _moved(search, groups.chains[mask], nodes)
                for mask, nodes in zip(masks, groups.disjoint(masks), strict=True)
            ]
        for mask in unknown:
            groups.search(mask, each)


class _Groups:
    """Speeds of groups of nodes, and the best disjoint ones. Equal nodes are counted, not named:
    a group is a set of bits in which the first of equal nodes are used."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._classes = search.classes()
        radix = tuple(len(members) + 1 for members in self._classes)
        self._counts, self._sets, self._groups, self._begins = _subsets(radix)
        self._values: Array = np.full(len(self._counts), -np.inf)
        # What each node adds to the index of a set.
        self._steps = [0] * len(search.nodes)
        for at, members in enumerate(self._classes):
            for member in members:
                self._steps[member] = math.prod(radix[at + 1 :])
        self.chains: dict[int, Chain] = {}
        self.slowest: dict[int, float] = {}

    def bound(self, mask: int, tokens_per_s: float) -> None:
        """Note that a group is no faster than this."""
        if tokens_per_s > 0:
            self._values[self._index(mask)] = tokens_per_s * (1 - PER_NODE * mask.bit_count())

    def search(self, mask: int, promise: Promise) -> None:
        """Find how fast a group is."""
        nodes = [node for at, node in enumerate(self._search.nodes) if mask >> at & 1]
        chain = Search(self._search.costs, nodes).best(promise, len(nodes), self.slowest[mask])
        if chain is None:
            self._values[self._index(mask)] = -np.inf
            return
        self.chains[mask] = chain
        self.bound(mask, chain.tokens_per_s(promise))

    def best(self, count: int, least: float) -> list[int] | None:
        """The disjoint groups with the most tokens a second together, if that is more than the
        least."""
        totals: list[Array] = [np.full(len(self._values), -np.inf)]
        totals[0][0] = 0.0
        rest = self._sets - self._groups
        for _ in range(count):
            options = totals[-1][rest] + self._values[self._groups]
            totals.append(np.maximum.reduceat(options, self._begins))
        at = int(totals[-1].argmax())
        if totals[-1][at] <= least:
            return None
        masks = []
        for before in reversed(totals[:-1]):
            groups = self._groups[self._sets == at]
            group = int(groups[int((before[at - groups] + self._values[groups]).argmax())])
            masks.append(self._mask(group))
            at -= group
        return masks

    def disjoint(self, masks: Sequence[int]) -> list[dict[int, int]]:
        """For each group which nodes stand for those of its mask."""
        left = [list(members) for members in self._classes]
        given = []
        for mask in masks:
            names = {}
            for members, free in zip(self._classes, left, strict=True):
                for member in members:
                    if mask >> member & 1:
                        names[self._search.nodes[member]] = self._search.nodes[free.pop(0)]
            given.append(names)
        return given

    def _index(self, mask: int) -> int:
        return sum(step for at, step in enumerate(self._steps) if mask >> at & 1)

    def _mask(self, index: int) -> int:
        return sum(
            1 << member
            for members, number in zip(self._classes, self._counts[index], strict=True)
            for member in members[: int(number)]
        )


@lru_cache(maxsize=8)
def _subsets(radix: tuple[int, ...]) -> tuple[Indices, Indices, Indices, Indices]:
    """How many of each kind of equal nodes every set has; every pair of a set and a group in it, by
    their indices; where the pairs of each set begin. What is left of a set without a group has the
    difference of their indices."""
    number = math.prod(radix)
    counts = np.stack(np.unravel_index(np.arange(number), radix), axis=1)
    sets, groups = np.nonzero(np.all(counts[:, None] >= counts[None], axis=2))
    return counts, sets, groups, np.searchsorted(sets, np.arange(number))


def _moved(search: Search, chain: Chain, names: dict[int, int]) -> Chain:
    return replace(chain, nodes=tuple(names[node] for node in chain.nodes))


def _groups_in_order(
    search: Search, each: Promise, num_stages: int | None, count: int
) -> list[Chain] | None:
    """Parts of an order along good links, with about as much memory each."""
    order = good_orders(search.costs, search.nodes)[0]
    sizes = np.cumsum([search.costs.nodes[node].memory_bytes for node in order])
    part = np.minimum(count - 1, (sizes - 1) * count // max(1, int(sizes[-1])))
    chains = []
    for at in range(count):
        nodes = [node for node, where in zip(order, part, strict=True) if int(where) == at]
        single = best_single(Search(search.costs, nodes), each, num_stages) if nodes else None
        if single is None:
            return None
        chains.append(single.replicas[0][0])
    return chains


def _share_streams(
    search: Search, promise: Promise, chains: Sequence[Chain]
) -> tuple[tuple[Chain, Promise], ...]:
    """Streams by speed; evenly where that is no faster or does not fit."""
    number, more = divmod(promise.streams, len(chains))
    even = [max(1, number + (at < more)) for at in range(len(chains))]
    each = replace(promise, streams=-(-promise.streams // len(chains)))
    speeds = np.array([chain.tokens_per_s(each) for chain in chains])
    shares = np.maximum(1, np.floor(promise.streams * speeds / speeds.sum())).astype(int)
    while int(shares.sum()) < promise.streams:
        shares[int(np.argmax(speeds / shares))] += 1
    options = [_replanned(search, promise, chains, even)]
    if int(shares.sum()) == promise.streams:
        options.append(_replanned(search, promise, chains, [int(share) for share in shares]))
    return max(
        (option for option in options if option is not None),
        key=lambda option: sum(chain.tokens_per_s(own) for chain, own in option),
        default=tuple((chain, each) for chain in chains),
    )


def _replanned(
    search: Search, promise: Promise, chains: Sequence[Chain], shares: Sequence[int]
) -> tuple[tuple[Chain, Promise], ...] | None:
    found = []
    for chain, share in zip(chains, shares, strict=True):
        own = replace(promise, streams=share)
        best = Search(search.costs, chain.nodes).best(own, len(chain.nodes))
        if best is None:
            return None
        found.append((best, own))
    return tuple(found)
