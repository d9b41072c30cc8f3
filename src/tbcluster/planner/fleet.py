"""Many sites, each a rack: which of them hold copies of a model, and how fast all of it is. Pure.

Region, site, pipeline: a site is cut into pods (see `pods`), each planned as a rack; sites and pods
that are equal in all but names are planned once. Sites of one region that hold no copy alone are
joined where a link between them is given.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from tbcluster.errors import PlanError
from tbcluster.planner.nodes import PlanLink, PlanNode, PlanRack
from tbcluster.planner.plan import PlannedReplica, Wishes
from tbcluster.planner.pod_plans import PodPlan, PodPlans, room
from tbcluster.planner.pods import MAX_PIPELINE_NODES, cut_into_pods
from tbcluster.planner.profile import ModelProfile
from tbcluster.planner.words import amount, count

MAX_FLEET_NODES = 1_000_000


@dataclass(frozen=True, slots=True)
class FleetSite:
    """A rack in a region; `kind` is what equal sites are called together."""

    name: str
    region: str
    rack: PlanRack
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All sites, and the link between any two sites of a region, where there is one."""

    sites: tuple[FleetSite, ...]
    region_links: Mapping[str, PlanLink] = field(default_factory=dict)


@dataclass(frozen=True)
class SitePlan:
    """What a site runs.

    Attributes:
        unused: Names of nodes that run nothing.
        reasons: Why it holds no copy, or why nodes are unused.
        joined: Name of the pipeline over several sites that it takes part in; empty for none.
    """

    site: FleetSite
    pods: tuple[PodPlan, ...]
    unused: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    joined: str = ""

    @cached_property
    def num_replicas(self) -> int:
        return sum(len(pod.plan.replicas) for pod in self.pods)

    @cached_property
    def tokens_per_s(self) -> float:
        """Of all streams of all copies."""
        return sum(pod.tokens_per_s for pod in self.pods)

    @property
    def num_nodes(self) -> int:
        return len(self.site.rack.nodes)

    @property
    def num_used(self) -> int:
        return self.num_nodes - len(self.unused)


@dataclass(frozen=True, slots=True)
class JoinedPlan:
    """A pipeline over several sites of a region; its nodes are called "site/node"."""

    name: str
    sites: tuple[str, ...]
    pod: PodPlan


@dataclass(frozen=True)
class RegionPlan:
    """The sites of a region."""

    name: str
    sites: tuple[SitePlan, ...]
    joined: tuple[JoinedPlan, ...] = ()

    def pods(self) -> Iterator[PodPlan]:
        """All pods, joined ones last."""
        for site in self.sites:
            yield from site.pods
        yield from (one.pod for one in self.joined)

    @cached_property
    def tokens_per_s(self) -> float:
        return sum(pod.tokens_per_s for pod in self.pods())


@dataclass(frozen=True)
class FleetPlan:
    """What a fleet runs.

    Attributes:
        context: Tokens of each stream.
        num_planned: Kinds of pods that were planned.
    """

    model: str
    regions: tuple[RegionPlan, ...]
    context: int
    num_planned: int

    def replicas(self) -> Iterator[PlannedReplica]:
        """Every copy, its nodes called by their places (see `PodPlan`)."""
        for region in self.regions:
            for pod in region.pods():
                yield from pod.plan.replicas

    @cached_property
    def num_replicas(self) -> int:
        return sum(1 for _ in self.replicas())

    @cached_property
    def tokens_per_s(self) -> float:
        """Of all streams of all copies."""
        return sum(region.tokens_per_s for region in self.regions)

    @cached_property
    def num_streams(self) -> int:
        """Streams at once over all copies; what was wished for each of as many copies as there is
        memory for, where fewer copies that are faster may take them."""
        return sum(replica.streams for replica in self.replicas())

    @cached_property
    def stream_tokens_per_s(self) -> tuple[float, float]:
        """Of one stream alone: on the slowest copy and on the fastest one; 0 without a copy."""
        speeds = [replica.stream_tokens_per_s for replica in self.replicas()]
        return min(speeds, default=0.0), max(speeds, default=0.0)

    @property
    def num_nodes(self) -> int:
        return sum(site.num_nodes for region in self.regions for site in region.sites)

    @property
    def num_used(self) -> int:
        return sum(site.num_used for region in self.regions for site in region.sites)


def plan_fleet(profile: ModelProfile, fleet: Fleet, wishes: Wishes) -> FleetPlan:
    """Copies of a model over all sites.

    Args:
        wishes: Its streams are those of each copy that there is memory for; fewer, larger copies
            may take them where they are as fast.

    Raises:
        PlanError: There is no site, or two of one name, or a promise that no rack could keep.
    """
    _check(fleet)
    plans = PodPlans(profile, wishes)
    planner = _Sites(profile, plans)
    regions: dict[str, list[SitePlan]] = defaultdict(list)
    for site in fleet.sites:
        regions[site.region].append(planner.planned(site))
    return FleetPlan(
        model=profile.name,
        regions=tuple(
            _region(name, sites, fleet.region_links.get(name), plans)
            for name, sites in regions.items()
        ),
        context=plans.promise.context,
        num_planned=plans.num_planned,
    )


class _Sites:
    """Plans sites; those with one and the same rack at once."""

    def __init__(self, profile: ModelProfile, plans: PodPlans) -> None:
        self._profile = profile
        self._plans = plans
        self._known: dict[int, SitePlan] = {}

    def planned(self, site: FleetSite) -> SitePlan:
        known = self._known.get(id(site.rack))
        if known is None:
            known = self._known[id(site.rack)] = self._fresh(site)
        return replace(known, site=site)

    def _fresh(self, site: FleetSite) -> SitePlan:
        cut = cut_into_pods(site.rack, self._plans)
        planned = [self._plans.plan(pod) for pod in cut.pods]
        pods = tuple(pod for pod in planned if pod is not None)
        used = {name for pod in pods for name in pod.used}
        unused = tuple(node.name for node in site.rack.nodes if node.name not in used)
        return SitePlan(
            site, pods, unused, tuple(self._reasons(site.rack, pods, unused, cut.spare))
        )

    def _reasons(
        self,
        rack: PlanRack,
        pods: Sequence[PodPlan],
        unused: Sequence[str],
        spare: Sequence[PlanNode],
    ) -> Iterator[str]:
        promise = self._plans.promise
        if not pods:
            held, need = room(rack.nodes), self._plans.copy_bytes
            streams = count(promise.streams, "stream")
            lacks = (
                f"{amount(need - held)} too little"
                if held < need
                else "and no node or pipeline of them has room where it is needed"
            )
            yield (
                f"it holds no copy alone: {self._profile.name} with {streams} of "
                f"{promise.context:,} tokens takes {amount(need)}, and its "
                f"{count(len(rack.nodes), 'node')} "
                f"{'has' if len(rack.nodes) == 1 else 'have'} {amount(held)}, {lacks}"
            )
            return
        if spare:
            yield (
                f"{count(len(spare), 'node')} are left over: with {amount(room(list(spare)))} "
                "together they hold no further copy"
            )
        idle = len(unused) - len(spare)
        if idle > 0:
            yield f"{count(idle, 'node')} would make no copy faster"


def _region(
    name: str, sites: Sequence[SitePlan], link: PlanLink | None, plans: PodPlans
) -> RegionPlan:
    """Its sites; those that hold no copy are joined where there is a link, the largest first."""
    failed = [at for at, site in enumerate(sites) if not site.pods]
    if link is None or len(failed) < 2:
        return RegionPlan(name, tuple(sites))
    result = list(sites)
    joined: list[JoinedPlan] = []
    group: list[int] = []
    for at in sorted(failed, key=lambda at: -room(sites[at].site.rack.nodes)):
        if sum(sites[one].num_nodes for one in (*group, at)) > MAX_PIPELINE_NODES:
            group = []
        if sites[at].num_nodes > MAX_PIPELINE_NODES:
            continue
        group.append(at)
        members = [sites[one].site for one in group]
        pod = _joined(members, link, plans)
        if pod is not None:
            made = JoinedPlan(
                f"{name} {len(joined) + 1}", tuple(site.name for site in members), pod
            )
            joined.append(made)
            for one in group:
                result[one] = _taking_part(sites[one], made)
            group = []
    return RegionPlan(name, tuple(result), tuple(joined))


def _joined(sites: Sequence[FleetSite], link: PlanLink, plans: PodPlans) -> PodPlan | None:
    """None if they do not hold a copy together."""
    held = sum(room(site.rack.nodes) for site in sites)
    return plans.plan(joined_rack(sites, link)) if held >= plans.copy_bytes else None


def joined_rack(sites: Sequence[FleetSite], link: PlanLink) -> PlanRack:
    """Several sites as one rack, its nodes called "site/node", the first site's head its head."""
    nodes: list[PlanNode] = []
    links: dict[tuple[str, str], PlanLink] = {}
    for at, site in enumerate(sites):
        names = {node.name: f"{site.name}/{node.name}" for node in site.rack.nodes}
        links |= {(names[one], names[other]): own for (one, other), own in site.rack.links.items()}
        for before in nodes:
            for name in names.values():
                links[before.name, name] = links[name, before.name] = link
        nodes += [
            replace(node, name=names[node.name], is_head=node.is_head and at == 0)
            for node in site.rack.nodes
        ]
    return PlanRack(tuple(nodes), links)


def _taking_part(site: SitePlan, joined: JoinedPlan) -> SitePlan:
    own = f"{site.site.name}/"
    used = {name.removeprefix(own) for name in joined.pod.used if name.startswith(own)}
    return replace(
        site,
        unused=tuple(node.name for node in site.site.rack.nodes if node.name not in used),
        joined=joined.name,
    )


def _check(fleet: Fleet) -> None:
    if not fleet.sites:
        raise PlanError("a fleet without sites: give at least one")
    number = sum(len(site.rack.nodes) for site in fleet.sites)
    if number > MAX_FLEET_NODES:
        raise PlanError(f"a fleet of {number:,} nodes: plan for at most {MAX_FLEET_NODES:,}")
    seen: set[str] = set()
    for site in fleet.sites:
        if site.name in seen:
            raise PlanError(f"two sites are called {site.name!r}: give each a name of its own")
        if not site.rack.nodes:
            raise PlanError(f"the site {site.name!r} has no nodes: give it one, or leave it out")
        seen.add(site.name)
