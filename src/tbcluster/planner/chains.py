"""The best chain of stages: least slowest stage or link, then the shortest trip of a step. Pure."""

from dataclasses import dataclass, replace

import numpy as np

from tbcluster.planner.cost import Promise
from tbcluster.planner.step_costs import RackCosts, StepCosts
from tbcluster.planner.sweep import Level, Sweep


@dataclass(frozen=True, slots=True)
class Chain:
    """Stages on nodes, in their order.

    Attributes:
        nodes: Indices into `RackCosts.nodes`.
        bounds: Indices into `RackCosts.bounds`, one more than there are nodes.
        slowest_s: The slowest stage or link of a decode step.
        trip_s: Such a step's whole trip.
    """

    nodes: tuple[int, ...]
    bounds: tuple[int, ...]
    slowest_s: float
    trip_s: float

    def tokens_per_s(self, promise: Promise) -> float:
        """All lanes together: a lane has its next token after its own trip, and not before all
        lanes have passed the slowest stage."""
        lanes = promise.num_lanes(len(self.nodes))
        return promise.streams / max(self.trip_s, lanes * self.slowest_s)


def within(busy: StepCosts, trip: StepCosts, limit_s: float) -> StepCosts:
    """The trip's costs, of what takes no longer than the limit."""
    return replace(
        trip,
        stages=np.where(busy.stages <= limit_s, trip.stages, np.inf),
        edges=np.where(busy.edges <= limit_s, trip.edges, np.inf),
        loops=None
        if busy.loops is None or trip.loops is None
        else np.where(busy.loops <= limit_s, trip.loops, np.inf),
    )


class ChainSearch:
    """Best chains over the states that some levels describe.

    Args:
        nodes: Which of the rack's nodes may be used; the levels count these.
    """

    def __init__(
        self, rack: RackCosts, nodes: tuple[int, ...], levels: tuple[Level, ...], *, in_order: bool
    ) -> None:
        self._rack = rack
        self._nodes = nodes
        self._levels = levels
        self._in_order = in_order
        self._sweeps: dict[tuple[Promise, int], list[Sweep]] = {}
        self._trips: dict[tuple[Promise, int], list[Sweep]] = {}

    def best(
        self, promise: Promise, num_stages: int, slowest_s: float | None = None
    ) -> Chain | None:
        """The best chain of exactly so many stages; None if there is none.

        Args:
            slowest_s: Its slowest stage or link, if that is known already.
        """
        if not 0 < num_stages <= min(len(self._nodes), len(self._rack.bounds) - 1):
            return None
        busy, trip = self._costs(promise, num_stages)
        if slowest_s is None:
            finals = [sweep.finals(num_stages) for sweep in self._busy(promise, num_stages)]
            slowest_s = min(float(values.min()) for values in finals)
        if not np.isfinite(slowest_s):
            return None
        limited = within(busy, trip, slowest_s)
        sweeps = [Sweep(limited, np.add, self._levels, first) for first in self._firsts(limited)]
        totals = [sweep.finals(num_stages) for sweep in sweeps]
        which = min(range(len(sweeps)), key=lambda at: float(totals[at].min()))
        step = int(totals[which].argmin())
        nodes, bounds = sweeps[which].chain(num_stages, step)
        found = tuple(self._nodes[node] for node in nodes)
        return Chain(found, bounds, slowest_s, float(totals[which][step]))

    def nodes_of_slowest(self, promise: Promise, num_stages: int) -> tuple[int, ...] | None:
        """The nodes of a chain whose slowest stage or link is the least; None if there is none."""
        if not 0 < num_stages <= min(len(self._nodes), len(self._rack.bounds) - 1):
            return None
        sweeps = self._busy(promise, num_stages)
        sweep = min(sweeps, key=lambda each: float(each.finals(num_stages).min()))
        finals = sweep.finals(num_stages)
        if not np.isfinite(finals.min()):
            return None
        nodes, _ = sweep.chain(num_stages, int(finals.argmin()))
        return tuple(self._nodes[node] for node in nodes)

    def bounds_of_groups(self, promise: Promise, num_stages: int) -> dict[int, tuple[float, float]]:
        """For each set of so many nodes (as bits of `Level.groups`) the slowest stage or link of
        its best chain, and a trip that none of its chains goes below."""
        level = self._levels[num_stages - 1]
        _, trip = self._costs(promise, num_stages)
        key = (promise, promise.num_lanes(num_stages))
        if key not in self._trips:
            firsts = self._firsts(trip)
            self._trips[key] = [Sweep(trip, np.add, self._levels, first) for first in firsts]
        least = [np.full(len(level.groups), np.inf) for _ in range(2)]
        sweeps = (self._busy(promise, num_stages), self._trips[key])
        for values, each in zip(least, sweeps, strict=True):
            for sweep in each:
                np.minimum.at(values, level.to_group, sweep.finals(num_stages))
        pairs = zip(map(float, least[0]), map(float, least[1]), strict=True)
        return dict(zip(level.groups, pairs, strict=True))

    def least_stages(self, promise: Promise) -> int | None:
        """The fewest stages that memory and links allow; None if the model does not fit. Speeds do
        not matter here: each node goes as far as its memory does."""
        nodes = list(self._nodes)
        fits = self._rack.fits(promise)[nodes]
        reaches = self._rack.reaches[np.ix_(nodes, nodes)]
        if self._in_order:
            reaches = np.triu(reaches, 1)
        enters = np.isfinite(self._rack.enter_s[nodes])
        leaves = np.isfinite(self._rack.leave_s[nodes])
        if bool((fits[:, 0, -1] & enters & leaves).any()):
            return 1
        # Of each node and start the last inner bound that it can go to; the start itself if none.
        inner = np.arange(fits.shape[1] - 1)
        furthest = np.where(fits[:, :-1, :-1], inner, inner[:, None]).max(axis=2)
        ends = fits[:, :, -1]
        state = np.full((1, len(nodes)), -1)
        for at, level in enumerate(self._levels):
            if at == 0:
                came = np.where(enters, 0, -1)[level.node]
            else:
                known = np.where(reaches.T[level.node], state[level.from_group], -1)
                came = known.max(axis=1)
                done = ends[level.node, came] & (came > 0) & leaves[level.node]
                if bool(done.any()):
                    return at + 1
            state = np.full((len(level.groups), len(nodes)), -1)
            gone = furthest[level.node, came]
            # One that cannot take the next layer stays out.
            state[level.to_group, level.node] = np.where((came >= 0) & (gone > came), gone, -1)
        return None

    def _busy(self, promise: Promise, num_stages: int) -> list[Sweep]:
        key = (promise, promise.num_lanes(num_stages))
        if key not in self._sweeps:
            busy, _ = self._costs(promise, num_stages)
            self._sweeps[key] = [
                Sweep(busy, np.maximum, self._levels, first) for first in self._firsts(busy)
            ]
        return self._sweeps[key]

    def _costs(self, promise: Promise, num_stages: int) -> tuple[StepCosts, StepCosts]:
        busy, trip = self._rack.costs(promise, num_stages)
        busy, trip = busy.among(self._nodes), trip.among(self._nodes)
        return (_ordered(busy), _ordered(trip)) if self._in_order else (busy, trip)

    def _firsts(self, costs: StepCosts) -> list[int | None]:
        """A looped model's way back depends on where stage 0 is: each is tried."""
        return [None] if costs.loops is None else list(range(costs.num_nodes))


def _ordered(costs: StepCosts) -> StepCosts:
    """Only hops to later nodes."""
    later = np.triu(np.ones((costs.num_nodes,) * 2, dtype=np.bool_), 1)
    return replace(costs, edges=np.where(later, costs.edges, np.inf))
