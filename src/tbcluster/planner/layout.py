"""From wishes to stages on nodes: one on each, or several where more are wished for. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tbcluster.core import StageRange
from tbcluster.planner.chains import Chain
from tbcluster.planner.cost import Promise
from tbcluster.planner.nodes import PlanRack
from tbcluster.planner.partition import even_split
from tbcluster.planner.plan import Wishes
from tbcluster.planner.predict import Placed, memory_shortage
from tbcluster.planner.profile import ModelProfile
from tbcluster.planner.replicas import Choice, choose, max_replicas
from tbcluster.planner.search import Search
from tbcluster.planner.step_costs import RackCosts


@dataclass(frozen=True, slots=True)
class Layout:
    """Stages of each replica, and what it promises.

    Attributes:
        choice: What it was chosen from.
        num_sharing: Replicas that share every node.
    """

    replicas: tuple[tuple[tuple[Placed, ...], Promise], ...]
    choice: Choice
    num_sharing: int = 1


class Layouts:
    """Lays a model out on a rack, for any promise."""

    def __init__(self, profile: ModelProfile, rack: PlanRack, wishes: Wishes) -> None:
        self.profile = profile
        self.wishes = wishes
        self.num_sharing = _num_sharing(rack, wishes)
        self.rack = _shared(rack, self.num_sharing)
        self.search = Search(RackCosts(profile, self.rack.nodes, self.rack))

    def fits(self, promise: Promise) -> bool:
        """Whether there is a layout at all."""
        stages, replicas = self.wishes.stages, self.wishes.replicas
        if stages is None and replicas in {None, 1}:
            if self.search.least_stages(promise) is not None:
                return True
            # Several copies with some of the streams each may fit where one with all does not.
            if replicas == 1 or max_replicas(self.search, promise) < 2:
                return False
        return self.best(promise) is not None

    def best(self, promise: Promise) -> Layout | None:
        """The best layout; None if there is none."""
        stages, replicas = self.wishes.stages, self.wishes.replicas
        if self.num_sharing > 1:
            promise = replace(promise, streams=-(-promise.streams // self.num_sharing))
            replicas = 1
        if stages is not None and stages > len(self.rack.nodes):
            return self._stacked(promise, stages)
        choice = choose(self.search, promise, stages, replicas)
        if choice is None:
            return None
        choice = self._head_first(choice)
        laid = tuple((self._placed(chain), own) for chain, own in choice.replicas)
        return Layout(laid * self.num_sharing, choice, self.num_sharing)

    def _head_first(self, choice: Choice) -> Choice:
        """The replica that the head node takes part in comes first, as its node does elsewhere."""
        heads = {at for at, node in enumerate(self.rack.nodes) if node.is_head}
        ordered = sorted(choice.replicas, key=lambda one: heads.isdisjoint(one[0].nodes))
        return replace(choice, replicas=tuple(ordered))

    def _placed(self, chain: Chain) -> tuple[Placed, ...]:
        bounds = [self.search.costs.bounds[bound] for bound in chain.bounds]
        nodes = [self.rack.nodes[node] for node in chain.nodes]
        return tuple(
            Placed(node, StageRange(*layers))
            for node, layers in zip(nodes, pairwise(bounds), strict=True)
        )

    def _stacked(self, promise: Promise, num_stages: int) -> Layout | None:
        """More stages than nodes: each node's layers are split evenly among its stages."""
        for count in range(self.search.max_stages, 0, -1):
            chain = self.search.best(promise, count)
            if chain is not None:
                placed = self._split(self._placed(chain), num_stages)
                if memory_shortage(self.profile, [(placed, promise)]):
                    continue
                laid = ((placed, promise),) * self.num_sharing
                return Layout(laid, Choice(((chain, promise),)), self.num_sharing)
        return None

    def _split(self, whole: Sequence[Placed], num_stages: int) -> tuple[Placed, ...]:
        shares = [0] * len(whole)
        for stage in range(num_stages):
            shares[stage * len(whole) // num_stages] += 1
        inner = [self._cuts(one.layers) for one in whole]
        if any(share - 1 > len(cuts) for share, cuts in zip(shares, inner, strict=True)):
            # A node has too few layers for its stages: an even split over all of them.
            ranges = even_split(len(self.profile.layers), self.profile.legal_cuts, num_stages)
            return tuple(
                Placed(whole[stage * len(whole) // num_stages].node, layers)
                for stage, layers in enumerate(ranges)
            )
        return tuple(
            Placed(one.node, StageRange(one.layers.start + part.start, one.layers.start + part.end))
            for one, share, cuts in zip(whole, shares, inner, strict=True)
            for part in even_split(one.layers.end - one.layers.start, cuts, share)
        )

    def _cuts(self, layers: StageRange) -> tuple[int, ...]:
        """Legal cuts within a range, counted from its start."""
        return tuple(
            cut - layers.start for cut in self.profile.legal_cuts if layers.start < cut < layers.end
        )


def _num_sharing(rack: PlanRack, wishes: Wishes) -> int:
    """Replicas lie side by side on every node where there are not enough nodes for all."""
    size = min(wishes.stages or 1, len(rack.nodes))
    replicas = wishes.replicas or 1
    return replicas if replicas * size > len(rack.nodes) else 1


def _shared(rack: PlanRack, num_sharing: int) -> PlanRack:
    """Each node as one of so many replicas has it."""
    if num_sharing == 1:
        return rack
    nodes = tuple(
        replace(
            node,
            memory_bytes=node.memory_bytes // num_sharing,
            speed=node.speed.shared_by(num_sharing),
        )
        for node in rack.nodes
    )
    return replace(rack, nodes=nodes)
