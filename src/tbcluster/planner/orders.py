"""Orders of nodes along good links, and small changes that improve a chain: for large racks. Pure.

With more nodes than all orders can be tried for, a good order is fixed first; which of its nodes
are used and where the model is cut is then exact for that order, and local search changes nodes and
order as long as that helps.
"""

from collections.abc import Iterator

import numpy as np

from tbcluster.planner.chains import Chain
from tbcluster.planner.cost import Array, Promise
from tbcluster.planner.step_costs import RackCosts, StepCosts

# Chains that local search looks at: about a second for 64 nodes.
MAX_TRIALS = 300


def good_orders(costs: RackCosts, nodes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Orders worth trying: the shortest way from the coordinator through all nodes and back that
    is found quickly, and the fastest nodes first."""
    along = _shorter(costs, _nearest_first(costs, nodes))
    speeds = {node: costs.nodes[node].speed for node in nodes}
    fast = sorted(nodes, key=lambda node: speeds[node].rates[0][1] + speeds[node].rates[-1][1])
    return list(dict.fromkeys((along, tuple(fast))))


def improved(costs: RackCosts, promise: Promise, chain: Chain, nodes: tuple[int, ...]) -> Chain:
    """The chain, or a better one of as many stages."""
    best, trials = chain, 0
    is_better = True
    while is_better and trials < MAX_TRIALS:
        is_better = False
        for candidate in _neighbours(costs, promise, best, nodes):
            trials += 1
            found = fixed_chain(costs, promise, candidate, best.slowest_s)
            if found is not None and _rank(found) < _rank(best):
                best, is_better = found, True
                break
            if trials >= MAX_TRIALS:
                break
    return best


def fixed_chain(
    costs: RackCosts, promise: Promise, nodes: tuple[int, ...], limit_s: float = np.inf
) -> Chain | None:
    """The best cuts for these nodes in this order; None if they are slower than the limit."""
    busy, trip = costs.costs(promise, len(nodes))
    busy_band, trip_band = costs.bands(promise, len(nodes))
    slowest, _ = _along(busy, busy_band[list(nodes)], nodes, np.maximum)
    if not np.isfinite(slowest) or slowest > limit_s:
        return None
    index = list(nodes)
    band = np.where(busy_band[index] <= slowest, trip_band[index], np.inf)
    total, bounds = _along(trip, band, nodes, np.add)
    return Chain(nodes, bounds, slowest, total)


def _along(
    costs: StepCosts, band: Array, nodes: tuple[int, ...], combine: np.ufunc
) -> tuple[float, tuple[int, ...]]:
    """(least cost, bounds) of a chain over all these nodes in their order; `band` is theirs."""
    _, width, size = band.shape
    # Entry `width + bound`, so that a stage of any width has a start.
    padded: Array = np.full(width + size, np.inf)
    padded[width] = costs.enter[nodes[0]]
    # Line `span - 1` is where stages of that span start, by where they end.
    starts = np.lib.stride_tricks.sliding_window_view(padded, size)[width - 1 :: -1][:width]
    spans = []
    for at, node in enumerate(nodes):
        if at:
            padded[width:] = combine(padded[width:], costs.edges[nodes[at - 1], node])
        options = combine(starts, band[at])
        spans.append(options.argmin(axis=0))
        padded[width:] = options.min(axis=0)
    bounds = [size - 1]
    for span in reversed(spans):
        bounds.append(bounds[-1] - 1 - int(span[bounds[-1]]))
    total = combine(padded[-1], costs.leave[nodes[-1]])
    if costs.loops is not None:
        total = combine(total, costs.loops[nodes[-1], nodes[0]])
    return float(total), tuple(reversed(bounds))


def _rank(chain: Chain) -> tuple[float, float]:
    return (chain.slowest_s, chain.trip_s)


def _neighbours(
    costs: RackCosts, promise: Promise, chain: Chain, nodes: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    """Chains that differ by one change: the slowest stage's node for another one, its place with
    another one's, then any stage to another place."""
    slow = _slowest_stage(costs, promise, chain)
    used = list(chain.nodes)
    for node in nodes:
        if node not in chain.nodes:
            yield (*used[:slow], node, *used[slow + 1 :])
    for other in range(len(used)):
        if other != slow:
            swapped = list(used)
            swapped[slow], swapped[other] = swapped[other], swapped[slow]
            yield tuple(swapped)
    for start in range(len(used)):
        for place in range(len(used)):
            if place not in {start, start - 1}:
                rest = used[:start] + used[start + 1 :]
                yield (*rest[:place], used[start], *rest[place:])


def _slowest_stage(costs: RackCosts, promise: Promise, chain: Chain) -> int:
    busy, _ = costs.costs(promise, len(chain.nodes))
    times = [
        busy.stages[node, start, end]
        for node, start, end in zip(chain.nodes, chain.bounds, chain.bounds[1:], strict=False)
    ]
    return int(np.argmax(times))


def _nearest_first(costs: RackCosts, nodes: tuple[int, ...]) -> list[int]:
    """From the coordinator always to the nearest node that is left."""
    left, order = list(nodes), []
    distance = dict(zip(nodes, costs.enter_s[list(nodes)], strict=True))
    while left:
        nearest = min(left, key=lambda node: (distance[node], node))
        left.remove(nearest)
        order.append(nearest)
        distance = {node: costs.hop_s[nearest, node] for node in left}
    return order


def _shorter(costs: RackCosts, order: list[int]) -> tuple[int, ...]:
    """2-opt: parts are turned round as long as that shortens the way to the coordinator's return.
    A hop that is impossible counts as very long, so that one order can be compared with another."""
    size = len(order)
    index = np.array(order)
    hops = np.nan_to_num(costs.hop_s[np.ix_(index, index)], posinf=1e6)
    enter = np.nan_to_num(costs.enter_s[index], posinf=1e6)
    leave = np.nan_to_num(costs.leave_s[index], posinf=1e6)
    tour = list(range(size))

    def length(way: list[int]) -> float:
        inner = float(hops[way[:-1], way[1:]].sum())
        return inner + float(enter[way[0]] + leave[way[-1]])

    best = length(tour)
    is_shorter = size <= MAX_TRIALS
    for _ in range(2 * size):
        if not is_shorter:
            break
        is_shorter = False
        for start in range(size - 1):
            for end in range(start + 2, size + 1):
                turned = tour[:start] + tour[start:end][::-1] + tour[end:]
                turned_length = length(turned)
                if turned_length < best * (1 - 1e-9):
                    tour, best, is_shorter = turned, turned_length, True
    return tuple(int(index[at]) for at in tour)
