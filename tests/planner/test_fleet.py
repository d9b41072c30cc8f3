"""Sites planned as pods: each copy is a plan that a rack of its own would get."""

import random
from dataclasses import replace

import pytest

from tbcluster.errors import PlanError
from tbcluster.planner.fleet import Fleet, FleetPlan, FleetSite, SitePlan, joined_rack, plan_fleet
from tbcluster.planner.network_links import NetworkLinks
from tbcluster.planner.nodes import PlanLink, PlanNode, PlanRack
from tbcluster.planner.plan import Wishes
from tbcluster.planner.planning import make_plan
from tbcluster.planner.pod_plans import PodPlans, room
from tbcluster.planner.pods import MAX_POD_NODES, cut_into_pods
from tests.planner.racks import model, node

MODEL = model(12)
WISHES = Wishes(context=256, streams=2)
NETWORK, CABLE, FAR = PlanLink(3e-4, 1e8), PlanLink(5e-5, 1e9), PlanLink(2e-3, 1e8)
COPY = PodPlans(MODEL, WISHES).copy_bytes


def site(name: str, *nodes: PlanNode, region: str = "west", kind: str = "") -> FleetSite:
    """On one network; the first node is the head."""
    led = tuple(replace(one, is_head=at == 0) for at, one in enumerate(nodes))
    links = NetworkLinks([one.name for one in nodes], NETWORK)
    return FleetSite(name, region, PlanRack(led, links), kind)


def nodes(
    number: int, memory_mb: float, prefix: str = "n", slowness: float = 1.0
) -> list[PlanNode]:
    return [node(f"{prefix}{at}", memory_mb, slowness) for at in range(number)]


def planned(*sites: FleetSite, **links: PlanLink) -> FleetPlan:
    return plan_fleet(MODEL, Fleet(sites, links), WISHES)


def only_site(plan: FleetPlan) -> SitePlan:
    ((found,),) = (region.sites for region in plan.regions)
    return found


def test_a_small_site_is_planned_as_its_rack_is() -> None:
    one = site("a", *nodes(3, 80))
    (pod,) = only_site(planned(one)).pods
    assert pod.replicas() == make_plan(MODEL, one.rack, pod_wishes(1)).replicas


def pod_wishes(copies: int) -> Wishes:
    return replace(WISHES, streams=copies * WISHES.streams)


def test_sites_that_differ_in_names_alone_are_planned_once() -> None:
    sites = [site(f"s{at}", *nodes(3, 80, prefix=f"s{at}-")) for at in range(50)]
    plan = planned(*sites)
    assert plan.num_planned == 1
    assert plan.num_replicas == 50
    assert plan.tokens_per_s == pytest.approx(50 * only_site(planned(sites[0])).tokens_per_s)
    names = {
        stage.node
        for region in plan.regions
        for one in region.sites
        for pod in one.pods
        for replica in pod.replicas()
        for stage in replica.stages
    }
    assert names == {f"s{at}-{n}" for at in range(50) for n in range(3)}


def test_sites_that_differ_in_a_link_or_a_speed_are_not() -> None:
    same, slow = site("a", *nodes(3, 80)), site("b", *nodes(3, 80, slowness=3))
    far = replace(same, name="c", rack=replace(same.rack, links=NetworkLinks("", FAR)))
    far = replace(far, rack=replace(far.rack, links=NetworkLinks(["n0", "n1", "n2"], FAR)))
    plan = planned(same, slow, far)
    assert plan.num_planned == 3
    speeds = {one.site.name: one.tokens_per_s for one in plan.regions[0].sites}
    assert speeds["b"] < speeds["a"]
    assert speeds["c"] < speeds["a"]


@pytest.mark.parametrize("seed", range(5))
def test_a_large_site_is_cut_so_that_no_node_is_in_two_pods(seed: int) -> None:
    drawn = random.Random(seed)
    kinds = [(80, 1.0), (200, 2.0), (30, 1.0)]
    mixed = [node(f"n{at}", *drawn.choice(kinds)) for at in range(70)]
    names = [one.name for one in mixed]
    ring = [(names[at], names[(at + 1) % 30]) for at in range(30)]
    cables = {pair: CABLE for a, b in ring for pair in ((a, b), (b, a))}
    rack = PlanRack(tuple(mixed), NetworkLinks(names, NETWORK, cables))
    cut = cut_into_pods(rack, PodPlans(MODEL, WISHES))
    placed = [one.name for pod in cut.pods for one in (*pod.nodes,)] + [n.name for n in cut.spare]
    assert sorted(placed) == sorted(names)
    assert all(len(pod.nodes) <= MAX_POD_NODES for pod in cut.pods)
    assert all(sum(one.is_head for one in pod.nodes) == 1 for pod in cut.pods)
    plan = planned(FleetSite("s", "west", rack))
    found = only_site(plan)
    used = [stage.node for pod in found.pods for r in pod.replicas() for stage in r.stages]
    assert len(used) == len(set(used))
    assert sorted([*used, *found.unused]) == sorted(names)
    assert plan.num_streams >= WISHES.streams * (room(mixed) // COPY) // 2


def test_no_copy_exceeds_a_node() -> None:
    found = only_site(planned(site("s", *nodes(20, 80), *nodes(21, 60, prefix="small"))))
    assert found.num_used > 30
    for pod in found.pods:
        for replica in pod.replicas():
            assert all(stage.used_bytes <= stage.memory_bytes for stage in replica.stages)
            assert replica.streams >= 1


def test_cabled_nodes_share_a_pod() -> None:
    # Equal nodes: what belongs together only the cables tell.
    names = [f"n{at}" for at in range(24)]
    groups = [names[at::8] for at in range(8)]
    cables = {
        (one, other): CABLE for group in groups for one in group for other in group if one != other
    }
    links = NetworkLinks(names, NETWORK, cables)
    rack = PlanRack(tuple(nodes(24, 80)), links)
    for given in (rack, replace(rack, links=dict(links))):
        cut = cut_into_pods(given, PodPlans(MODEL, WISHES))
        assert not cut.spare
        for pod in cut.pods:
            inside = {one.name for one in pod.nodes}
            assert all(inside.issuperset(group) for group in groups if inside & set(group))


def test_equal_nodes_share_a_pod() -> None:
    mixed = [node(f"n{at}", 80, 1 + at % 2) for at in range(40)]
    links = NetworkLinks([one.name for one in mixed], NETWORK)
    cut = cut_into_pods(PlanRack(tuple(mixed), links), PodPlans(MODEL, WISHES))
    kinds = [len({one.speed for one in pod.nodes}) for pod in cut.pods]
    assert sum(number > 1 for number in kinds) <= 1 < len(kinds)


def test_nodes_left_over_are_told() -> None:
    found = only_site(planned(site("s", *nodes(20, 80))))
    assert len(found.unused) >= 2
    assert "2 nodes are left over" in found.reasons[0]


def test_a_site_that_holds_none_says_what_is_missing() -> None:
    found = only_site(planned(site("s", *nodes(2, 60))))
    assert (found.pods, found.unused) == ((), ("n0", "n1"))
    assert "it holds no copy alone: model with 2 streams of 256 tokens takes" in found.reasons[0]
    assert found.reasons[0].endswith("too little")


def test_near_sites_that_hold_none_are_joined_where_there_is_a_link() -> None:
    sites = [site(f"s{at}", *nodes(2, 80)) for at in range(4)]
    apart = planned(*sites)
    assert (apart.num_replicas, apart.num_used) == (0, 0)
    plan = planned(*sites, west=FAR)
    (region,) = plan.regions
    assert [one.sites for one in region.joined] == [("s0", "s1"), ("s2", "s3")]
    assert (plan.num_replicas, plan.num_used) == (2, 6 + 2 * (len(region.joined[0].pod.used) - 3))
    assert [one.joined for one in region.sites] == ["west 1", "west 1", "west 2", "west 2"]
    expected = make_plan(MODEL, joined_rack(sites[:2], FAR), WISHES)
    assert region.joined[0].pod.replicas() == expected.replicas
    assert {stage.node.split("/")[0] for stage in expected.replicas[0].stages} == {"s0", "s1"}


def test_sites_of_other_regions_or_with_copies_are_not_joined() -> None:
    alone = site("whole", *nodes(3, 80))
    west, east = site("w", *nodes(2, 80)), site("e", *nodes(2, 80), region="east")
    plan = planned(alone, west, east, west=FAR, east=FAR)
    assert all(not region.joined for region in plan.regions)
    assert plan.num_replicas == 1


def test_a_pipeline_is_no_slower_than_its_far_link_makes_it() -> None:
    sites = [site(f"s{at}", *nodes(2, 80)) for at in range(2)]
    near, far = planned(*sites, west=NETWORK), planned(*sites, west=PlanLink(1.0, 1e8))
    assert 0.3 < far.stream_tokens_per_s[1] < 1.0 < near.stream_tokens_per_s[1]


def test_fleets_that_cannot_be_planned_are_refused() -> None:
    one = site("a", *nodes(3, 80))
    for fleet, words in (
        (Fleet(()), "without sites"),
        (Fleet((one, one)), "two sites are called 'a'"),
        (Fleet((replace(one, rack=PlanRack((), {})),)), "'a' has no nodes"),
    ):
        with pytest.raises(PlanError, match=words):
            plan_fleet(MODEL, fleet, WISHES)
    with pytest.raises(PlanError, match="0 streams"):
        plan_fleet(MODEL, Fleet((one,)), Wishes(streams=0))
