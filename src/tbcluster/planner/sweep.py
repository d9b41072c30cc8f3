"""Dynamic programming over chains of stages: which nodes so far, which one last, cut where. Pure.

A sweep combines the costs of stages and hops along a chain, by their maximum or by their sum, and
keeps the least for each state. Levels say which states follow which: all subsets of the nodes in
any order (exact, for few nodes), or one given order in which nodes may be passed over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tbcluster.planner.cost import Array
from tbcluster.planner.step_costs import StepCosts

Indices = npt.NDArray[np.intp]
Combine = Callable[[Array, Array], Array]


@dataclass(frozen=True, slots=True)
class Level:
    """How the states of so many stages come from those of one stage fewer.

    Attributes:
        groups: For each group of states the set of nodes used so far, as bits; what is not told
            apart shares a group.
        to_group, node, from_group: Of each step: the group it leads to, the node it adds, the group
            it comes from.
    """

    groups: tuple[int, ...]
    to_group: Indices
    node: Indices
    from_group: Indices


@lru_cache(maxsize=64)
def subset_levels(num_nodes: int, twins: tuple[int, ...]) -> tuple[Level, ...]:
    """Every subset in every order; level 0 is for one stage.

    Args:
        twins: For each node the ones before it, as bits, that are its equals in everything: they
            are used first, since using another one of them is the same plan.
    """
    levels = []
    known = {0: 0}
    for _ in range(num_nodes):
        groups: dict[int, int] = {}
        steps = []
        for mask, at in known.items():
            for node in range(num_nodes):
                if not mask >> node & 1 and twins[node] & mask == twins[node]:
                    steps.append((groups.setdefault(mask | 1 << node, len(groups)), node, at))
        levels.append(_level(tuple(groups), steps))
        known = groups
    return tuple(levels)


def order_levels(num_nodes: int) -> tuple[Level, ...]:
    """One order, kept by the costs: hops to earlier nodes are infinite."""
    level = _level((0,), [(0, node, 0) for node in range(num_nodes)])
    return (level,) * num_nodes


def _level(groups: tuple[int, ...], steps: list[tuple[int, int, int]]) -> Level:
    columns = np.array(steps, np.intp).reshape(-1, 3).T
    return Level(groups, columns[0], columns[1], columns[2])


class Sweep:
    """Least costs of chains of one stage, two stages, and so on, made as they are asked for.

    Args:
        combine: `np.maximum` or `np.add`.
        first: The node of stage 0, if only that one may be.
    """

    def __init__(
        self,
        costs: StepCosts,
        combine: Combine,
        levels: tuple[Level, ...],
        first: int | None = None,
    ) -> None:
        self._costs = costs
        self._combine = combine
        self._levels = levels
        self._first = first
        # Where stages that are not the last one start and end: inner bounds.
        self._inner = costs.stages[:, 1:-1, 1:-1]
        self._diagonals = _diagonals(self._inner)
        self._last = np.ascontiguousarray(costs.stages[:, 1:-1, -1])
        self._states = [self._begin()]

    def finals(self, num_stages: int) -> Array:
        """The least cost of whole chains for each step of that level (see `Level`)."""
        level = self._levels[num_stages - 1]
        if num_stages == 1:
            entered = self._combine(self._enter(), self._costs.stages[:, 0, -1])[level.node]
        else:
            came = self._arrivals(level, self._state(num_stages - 1))
            entered = self._combine(came, self._last[level.node]).min(axis=1, initial=np.inf)
        return self._combine(entered, self._back()[level.node])

    def chain(self, num_stages: int, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(nodes, bounds) of the chain that `finals` has there."""
        level = self._levels[num_stages - 1]
        node, group = int(level.node[step]), int(level.from_group[step])
        nodes, bounds = [node], [self._costs.num_bounds - 1]
        after = self._last[node]
        for count in range(num_stages - 1, 0, -1):
            state = self._state(count)[group]
            edges = self._costs.edges[:, node, None]
            options = self._combine(self._combine(state, edges), after[None])
            last, cut = divmod(int(options.argmin()), options.shape[1])
            nodes.append(last)
            bounds.append(cut + 1)
            if count > 1:
                group = self._group_before(count, group, last, cut)
                node, after = last, self._inner[last][:, cut]
        return tuple(reversed(nodes)), (0, *reversed(bounds))

    def _group_before(self, count: int, group: int, node: int, cut: int) -> int:
        level = self._levels[count - 1]
        steps = np.flatnonzero((level.to_group == group) & (level.node == node))
        return int(level.from_group[steps[0]])

    def _enter(self) -> Array:
        enter = self._costs.enter
        if self._first is None:
            return enter
        only: Array = np.where(np.arange(len(enter)) == self._first, enter, np.inf)
        return only

    def _back(self) -> Array:
        leave, loops = self._costs.leave, self._costs.loops
        if loops is None or self._first is None:
            return leave
        return self._combine(leave, loops[:, self._first])

    def _begin(self) -> Array:
        level, costs = self._levels[0], self._costs
        state = np.full((len(level.groups), costs.num_nodes, costs.num_bounds - 2), np.inf)
        first = self._combine(self._enter()[:, None], costs.stages[:, 0, 1:-1])
        state[level.to_group, level.node] = first[level.node]
        return state

    def _state(self, num_stages: int) -> Array:
        while len(self._states) < num_stages:
            level, before = self._levels[len(self._states)], self._states[-1]
            state = np.full((len(level.groups), *before.shape[1:]), np.inf)
            came = self._arrivals(level, before)
            state[level.to_group, level.node] = self._following(came, level.node)
            self._states.append(state)
        return self._states[num_stages - 1]

    def _arrivals(self, level: Level, before: Array) -> Array:
        """(steps, bounds): the least cost up to the hop to the node that each step adds."""
        edges = self._costs.edges.T[level.node]
        result = np.full((len(level.node), before.shape[2]), np.inf)
        for last in range(self._costs.num_nodes):
            came = self._combine(before[level.from_group, last], edges[:, last, None])
            np.minimum(result, came, out=result)
        return result

    def _following(self, came: Array, node: Indices) -> Array:
        """(steps, bounds): the least cost with that node's stage."""
        result = np.full_like(came, np.inf)
        size = came.shape[1]
        for span, diagonal in enumerate(self._diagonals, start=1):
            both = self._combine(came[:, : size - span], diagonal[node])
            np.minimum(result[:, span:], both, out=result[:, span:])
        return result


def _diagonals(stages: Array) -> list[Array]:
    """(nodes, starts) of the stages that span 1 bound, 2 bounds and so on, as far as any can."""
    size = stages.shape[1]
    found: list[Array] = []
    for span in range(1, size):
        diagonal = np.ascontiguousarray(np.diagonal(stages, span, axis1=1, axis2=2))
        if not np.isfinite(diagonal).any():
            break
        found.append(diagonal)
    return found
