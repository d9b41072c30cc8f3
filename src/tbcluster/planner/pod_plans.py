"""Plans of pods, each kind of pod planned once. Pure.

A pod is a part of a site that is planned as a rack of its own. Pods that are equal in all but their
nodes' names have the same plan: it is made with the nodes' places for names.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import permutations

from tbcluster.core import StageRange
from tbcluster.errors import DoesNotFitError, PlanError
from tbcluster.planner.cost import MemoryCosts, Promise, reserve_bytes
from tbcluster.planner.layout import Layouts
from tbcluster.planner.network_links import NetworkLinks
from tbcluster.planner.nodes import NodePower, NodeSpeed, PlanLink, PlanNode, PlanRack
from tbcluster.planner.plan import DEFAULT_CONTEXT, Plan, PlannedReplica, Wishes
from tbcluster.planner.planning import make_plan
from tbcluster.planner.profile import ModelProfile

NodeKind = tuple[int, NodeSpeed, NodePower | None, float | None]
Signature = tuple[tuple[int, ...], bool, tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class PodPlan:
    """A pod and its plan.

    Attributes:
        nodes: Their names; the plan's names are places in here, "0" for the first one.
    """

    nodes: tuple[str, ...]
    plan: Plan

    @property
    def tokens_per_s(self) -> float:
        """Of all streams of all copies."""
        return sum(replica.tokens_per_s for replica in self.plan.replicas)

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the nodes that run something."""
        places = {stage.node for replica in self.plan.replicas for stage in replica.stages}
        return tuple(self.nodes[int(place)] for place in sorted(places, key=int))

    def replicas(self) -> tuple[PlannedReplica, ...]:
        """The copies, with the nodes' names."""
        return tuple(
            replace(
                replica,
                stages=tuple(
                    replace(stage, node=self.nodes[int(stage.node)]) for stage in replica.stages
                ),
            )
            for replica in self.plan.replicas
        )


class PodPlans:
    """Plans pods for one model and one promise to each copy.

    Args:
        wishes: Its streams are those of one copy.

    Raises:
        PlanError: No rack could keep the promise.
    """

    def __init__(self, profile: ModelProfile, wishes: Wishes) -> None:
        check_wishes(profile, wishes)
        usual = min(profile.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        self.wishes = replace(wishes, context=wishes.context or usual)
        self.promise = Promise(self.wishes.context or usual, wishes.streams)
        self._profile = profile
        self._kinds: dict[NodeKind, int] = {}
        self._plans: dict[Signature, Plan | None] = {}
        self._fits: dict[Signature, bool] = {}
        whole = StageRange(0, len(profile.layers))
        self.copy_bytes = MemoryCosts(profile, self.promise).of(whole).total_bytes

    @property
    def num_planned(self) -> int:
        """Kinds of pods that were planned."""
        return len(self._plans)

    def kind(self, node: PlanNode) -> int:
        """Equal for nodes that differ in nothing but their names."""
        key = (node.memory_bytes, node.speed, node.power, node.price_usd)
        return self._kinds.setdefault(key, len(self._kinds))

    def plan(self, rack: PlanRack) -> PodPlan | None:
        """The pod with as many copies as give the most; None if it does not hold one."""
        ordered, signature = self._canonical(rack)
        if signature not in self._plans:
            self._plans[signature] = self._planned(_placed(rack, ordered))
        plan = self._plans[signature]
        return None if plan is None else PodPlan(tuple(node.name for node in ordered), plan)

    def fits(self, rack: PlanRack) -> bool:
        """Whether a pod holds a copy."""
        if room(rack.nodes) < self.copy_bytes:
            return False
        ordered, signature = self._canonical(rack)
        if signature not in self._fits:
            self._fits[signature] = self._holds(_placed(rack, ordered), self.wishes)
        return self._fits[signature]

    def _planned(self, rack: PlanRack) -> Plan | None:
        """As many copies as there is memory for may have their streams; fewer, if they do not fit
        node by node."""
        copies = max(1, min(len(rack.nodes), room(rack.nodes) // max(1, self.copy_bytes)))
        while copies:
            wishes = replace(self.wishes, streams=copies * self.wishes.streams)
            if self._holds(rack, wishes):
                return make_plan(self._profile, rack, wishes)
            copies //= 2
        return None

    def _holds(self, rack: PlanRack, wishes: Wishes) -> bool:
        """Asking is much cheaper than an error that says what would help."""
        promise = replace(self.promise, streams=wishes.streams)
        try:
            return Layouts(self._profile, rack, wishes).fits(promise)
        except PlanError:
            return False

    def _canonical(self, rack: PlanRack) -> tuple[list[PlanNode], Signature]:
        """The nodes in an order that does not depend on their names, and all that the plan depends
        on."""
        places = range(len(rack.nodes))
        kinds = [self.kind(node) for node in rack.nodes]
        order = sorted(places, key=lambda at: (not rack.nodes[at].is_head, kinds[at], at))
        ordered = [rack.nodes[at] for at in order]
        has_head = bool(ordered) and ordered[0].is_head
        return ordered, (tuple(kinds[at] for at in order), has_head, _links(rack, ordered))


def check_wishes(profile: ModelProfile, wishes: Wishes) -> None:
    """Raise PlanError for a promise that no rack could keep."""
    # The planner says so whatever the rack: a machine with room for the weights is asked.
    speed = NodeSpeed(((1, 1e-12),), 0.0, 0.0, 0.0)
    ample = PlanNode("", 4 * (profile.weight_bytes + (1 << 30)), speed, is_head=True)
    with suppress(DoesNotFitError):
        make_plan(profile, PlanRack((ample,), {}), wishes)


def room(nodes: tuple[PlanNode, ...] | list[PlanNode]) -> int:
    """Bytes that models may take on nodes, but for what stays free on each."""
    return sum(node.memory_bytes - reserve_bytes(node.memory_bytes) for node in nodes)


def _links(rack: PlanRack, ordered: list[PlanNode]) -> tuple[object, ...]:
    names = [node.name for node in ordered]
    links = rack.links
    if isinstance(links, NetworkLinks):
        if not links.cables:
            return (links.network,)
        place = {name: at for at, name in enumerate(names)}
        cables = [(place[a], place[b], cable) for (a, b), cable in links.cables.items()]
        return (links.network, *sorted(cables, key=lambda cable: cable[:2]))
    return tuple(links.get(pair) for pair in permutations(names, 2))


def _placed(rack: PlanRack, ordered: list[PlanNode]) -> PlanRack:
    """The same with places for names."""
    nodes = tuple(replace(node, name=str(at)) for at, node in enumerate(ordered))
    links: dict[tuple[str, str], PlanLink] = {}
    for one, other in permutations(range(len(ordered)), 2):
        link = rack.links.get((ordered[one].name, ordered[other].name))
        if link is not None:
            links[str(one), str(other)] = link
    return PlanRack(nodes, links)
