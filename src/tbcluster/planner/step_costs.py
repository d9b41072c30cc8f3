"""What a decode step costs on each node and link of a rack, as arrays for the search. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tbcluster.planner.cost import (
    Array,
    LayerKinds,
    MemoryCosts,
    Promise,
    TimeCosts,
    decode_load,
    reserve_bytes,
)
from tbcluster.planner.nodes import PlanNode, PlanRack
from tbcluster.planner.profile import ModelProfile


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Costs of stages and hops; infinite is impossible. Bounds are where the model may be cut.

    Attributes:
        stages: (nodes, bounds, bounds): a stage between two bounds.
        edges: (nodes, nodes): from a stage to the next one.
        enter, leave: (nodes,): from the coordinator, and back to it.
        loops: (nodes, nodes): from the last stage to the first one, of looped models; None if the
            model passes once.
    """

    stages: Array
    edges: Array
    enter: Array
    leave: Array
    loops: Array | None

    @property
    def num_nodes(self) -> int:
        return len(self.enter)

    @property
    def num_bounds(self) -> int:
        return int(self.stages.shape[1])

    def band(self) -> Array:
        """(nodes, widths, bounds): the same stages by how many bounds they span, 1 first, and where
        they end; no wider than any of them can be."""
        size = self.num_bounds
        start, end = np.nonzero(np.isfinite(self.stages).any(axis=0))
        width = int((end - start).max(initial=1))
        band = np.full((self.num_nodes, width, size), np.inf)
        for span in range(1, width + 1):
            starts = np.arange(size - span)
            band[:, span - 1, span:] = self.stages[:, starts, starts + span]
        return band

    def among(self, nodes: Sequence[int]) -> "StepCosts":
        """Of these nodes only."""
        index = list(nodes)
        square = np.ix_(index, index)
        return replace(
            self,
            stages=self.stages[index],
            edges=self.edges[square],
            enter=self.enter[index],
            leave=self.leave[index],
            loops=None if self.loops is None else self.loops[square],
        )


class RackCosts:
    """A model on a rack: memory and time of stages, for any promise."""

    def __init__(self, profile: ModelProfile, nodes: Sequence[PlanNode], rack: PlanRack) -> None:
        self.profile = profile
        self.nodes = tuple(nodes)
        self.bounds = (0, *profile.legal_cuts, len(profile.layers))
        self._latency, self._byte_s = _ways(self.nodes, rack)
        self.enter_s, self.leave_s = _head_ways(self.nodes, rack)
        self._kinds = LayerKinds(profile.layers)
        self._fits: dict[Promise, npt.NDArray[np.bool_]] = {}
        self._known: dict[tuple[Promise, int], tuple[StepCosts, StepCosts]] = {}
        self._bands: dict[tuple[Promise, int], tuple[Array, Array]] = {}

    def fits(self, promise: Promise) -> npt.NDArray[np.bool_]:
        """(nodes, bounds, bounds): whether a node has the memory for a stage."""
        known = self._fits.get(promise)
        if known is None:
            sizes = MemoryCosts(self.profile, promise).table(self.bounds)
            room = [node.memory_bytes - reserve_bytes(node.memory_bytes) for node in self.nodes]
            known = (sizes >= 0) & (sizes[None] <= np.array(room)[:, None, None])
            self._fits[promise] = known
        return known

    @cached_property
    def reaches(self) -> npt.NDArray[np.bool_]:
        """(nodes, nodes): whether there is a way from one to another."""
        reached: npt.NDArray[np.bool_] = np.isfinite(self._latency)
        return reached

    @cached_property
    def hop_s(self) -> Array:
        """(nodes, nodes): of one token's hidden states, from one node to another."""
        hops: Array = self._latency + self.profile.hidden_bytes * self._byte_s
        return hops

    def bands(self, promise: Promise, num_stages: int) -> tuple[Array, Array]:
        """Those of `costs`, see `StepCosts.band`."""
        key = (promise, promise.num_lanes(num_stages))
        if key not in self._bands:
            busy, trip = self.costs(promise, num_stages)
            self._bands[key] = busy.band(), trip.band()
        return self._bands[key]

    def twins(self, node: int, others: Sequence[int]) -> int:
        """Which of the others equal a node in everything, as bits of their places: exchanging the
        two changes nothing."""
        return sum(1 << at for at, other in enumerate(others) if self._are_equal(node, other))

    def costs(self, promise: Promise, num_stages: int) -> tuple[StepCosts, StepCosts]:
        """What bounds the throughput (stages, and the time that links are occupied), and what adds
        up to a step's trip (stages, and hops with their latency)."""
        lanes = promise.num_lanes(num_stages)
        known = self._known.get((promise, lanes))
        if known is None:
            known = self._computed(promise, num_stages)
            self._known[promise, lanes] = known
        return known

    def _are_equal(self, one: int, other: int) -> bool:
        a, b = self.nodes[one], self.nodes[other]
        if (a.memory_bytes, a.speed, a.is_head) != (b.memory_bytes, b.speed, b.is_head):
            return False
        swapped = np.arange(len(self.nodes))
        swapped[[one, other]] = other, one
        return all(
            np.array_equal(links, links[np.ix_(swapped, swapped)])
            for links in (self._latency, self._byte_s)
        ) and all(bool(ways[one] == ways[other]) for ways in (self.enter_s, self.leave_s))

    def _computed(self, promise: Promise, num_stages: int) -> tuple[StepCosts, StepCosts]:
        load = decode_load(promise, num_stages)
        by_speed = {}
        for node in self.nodes:
            if node.speed not in by_speed:
                by_speed[node.speed] = TimeCosts(self.profile, node.speed, load, self._kinds).table(
                    self.bounds
                )
        times = np.stack([by_speed[node.speed] for node in self.nodes])
        stages = np.where(self.fits(promise), times, np.inf)
        visits = self.profile.num_visits
        transfers = load.rows * self.profile.hidden_bytes * self._byte_s
        hops = self._latency + transfers
        is_looped = visits > 1
        busy = StepCosts(
            stages,
            visits * transfers,
            np.where(np.isfinite(self.enter_s), 0.0, np.inf),
            np.where(np.isfinite(self.leave_s), 0.0, np.inf),
            (visits - 1) * transfers if is_looped else None,
        )
        trip = StepCosts(
            stages,
            visits * hops,
            self.enter_s,
            self.leave_s,
            (visits - 1) * hops if is_looped else None,
        )
        return busy, trip


def _ways(nodes: Sequence[PlanNode], rack: PlanRack) -> tuple[Array, Array]:
    """(latency in seconds, seconds per byte) between all nodes; a node reaches itself at once."""
    size = len(nodes)
    latency, byte_s = np.full((size, size), np.inf), np.full((size, size), np.inf)
    index: dict[str, list[int]] = {}
    for at, node in enumerate(nodes):
        index.setdefault(node.name, []).append(at)
    for (source, target), link in rack.links.items():
        for one in index.get(source, ()):
            for other in index.get(target, ()):
                latency[one, other], byte_s[one, other] = link.latency_s, 1 / link.bytes_per_s
    for same in index.values():
        for one in same:
            latency[one, same], byte_s[one, same] = 0.0, 0.0
    return latency, byte_s


def _head_ways(nodes: Sequence[PlanNode], rack: PlanRack) -> tuple[Array, Array]:
    """Seconds from the coordinator to each node and back: messages of a few bytes. Without a head
    node the coordinator is near all of them."""
    head = next((node.name for node in rack.nodes if node.is_head), None)
    enter, leave = np.zeros(len(nodes)), np.zeros(len(nodes))
    for at, node in enumerate(nodes):
        if head is None or node.name == head:
            continue
        there, back = rack.links.get((head, node.name)), rack.links.get((node.name, head))
        enter[at] = np.inf if there is None else there.latency_s
        leave[at] = np.inf if back is None else back.latency_s
    return enter, leave
