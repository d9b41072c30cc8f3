"""How long it takes to plan 1,000 and 100,000 nodes at many sites, and to route 100,000 requests.

One thread, a model shaped like DeepSeek-R1 in 4 bits; times are the processor's, so that neighbours
do not count. Sites are drawn: no two have the same machines, but by chance.
"""

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

from benchmarks.harness import Bar, Report
from benchmarks.planning import _experts
from tbcluster.cluster.fleet_routing import FleetRouter
from tbcluster.cluster.rack_file import LinkKind
from tbcluster.cluster.rack_shapes import NodeKind, RackShapes
from tbcluster.planner.fleet import Fleet, FleetPlan, FleetSite, plan_fleet
from tbcluster.planner.nodes import PlanLink
from tbcluster.planner.plan import Wishes

SEED = 7
NUM_REQUESTS = 100_000
NUM_REGIONS = 8
KINDS = (
    NodeKind("M4", 32),
    NodeKind("M4 Pro", 64),
    NodeKind("M4 Max", 128),
    NodeKind("M3 Ultra", 256),
    NodeKind("M3 Ultra", 512),
    NodeKind("M2 Ultra", 192),
    NodeKind("M1 Max", 64),
)
LINKS: tuple[LinkKind, ...] = ("thunderbolt5", "ethernet10", "ethernet1")
# Small offices, rooms, halls.
SITE_SIZES = (3, 8, 16, 40, 120, 400)
TOKENS = (100, 1000)
REGION_LINK = PlanLink(1e-3, 1.1e9)


def plan_thousand(report: Report, num_requests: int) -> None:
    """1,000 nodes of mixed kinds."""
    _measure(report, 1_000, num_requests, 60)


def plan_hundred_thousand(report: Report, num_requests: int) -> None:
    """100,000 nodes."""
    _measure(report, 100_000, num_requests, 300)


PARTS: dict[str, Callable[[Report, int], None]] = {
    "thousand": plan_thousand,
    "hundred-thousand": plan_hundred_thousand,
}


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    report = Report("fleet")
    for name, part in PARTS.items():
        if (not only and not (quick and part is plan_hundred_thousand)) or name in only:
            part(report, NUM_REQUESTS // 100 if quick else NUM_REQUESTS)
    return report


def drawn_fleet(num_nodes: int, seed: int = SEED) -> Fleet:
    """Sites of some sizes, of one to three kinds of machines each, linked one way or another."""
    drawn = random.Random(seed)
    shapes = {link: RackShapes("4-bit/64", link) for link in LINKS}
    sites = []
    left = num_nodes
    while left:
        size = min(left, round(drawn.choice(SITE_SIZES) * drawn.uniform(0.7, 1.3)))
        groups = _groups(drawn, size)
        rack = shapes[drawn.choice(LINKS)].rack(groups)
        region = f"region{drawn.randrange(NUM_REGIONS)}"
        sites.append(FleetSite(f"site{len(sites)}", region, rack))
        left -= size
    regions = {site.region for site in sites}
    return Fleet(tuple(sites), dict.fromkeys(regions, REGION_LINK))


def route(plan: FleetPlan, num_requests: int) -> Counter[int]:
    """So many requests, near some region each, twice as many at once as there are streams; how many
    each copy got."""
    drawn = random.Random(SEED)
    router = FleetRouter(plan)
    regions = [region.name for region in plan.regions]
    most = min(num_requests, 2 * plan.num_streams)
    running: list[tuple[float, int]] = []
    served: Counter[int] = Counter()
    now = 0.0
    for _ in range(num_requests):
        if len(running) == most:
            now, index = heapq.heappop(running)
            router.close(index)
        copy = router.open(near=drawn.choice(regions))
        assert copy is not None
        share = router.copies[copy].tokens_per_s / router.num_open(copy)
        heapq.heappush(running, (now + drawn.randint(*TOKENS) / share, copy))
        served[copy] += 1
    return served


def _measure(report: Report, num_nodes: int, num_requests: int, limit_s: float) -> None:
    fleet = drawn_fleet(num_nodes)
    began = time.process_time()
    plan = plan_fleet(_experts(61), fleet, Wishes())
    planned = time.process_time()
    served = route(plan, num_requests)
    ended = time.process_time()
    name = f"{num_nodes:,} nodes"
    report.add(f"{name}, {len(fleet.sites):,} sites: planned", planned - began, "s")
    report.add(f"{name}: {num_requests:,} requests routed", ended - planned, "s")
    report.add(f"{name}: both", ended - began, "s", Bar("<", limit_s, "s"))
    report.add(f"{name}: kinds of pods planned", plan.num_planned, "")
    report.add(f"{name}: copies", plan.num_replicas, "")
    report.add(f"{name}: nodes used", 100 * plan.num_used / plan.num_nodes, "%")
    report.add(f"{name}: copies that got a request", len(served), "")


def _groups(drawn: random.Random, size: int) -> list[tuple[NodeKind, int]]:
    kinds = drawn.sample(KINDS, drawn.randint(1, min(3, size)))
    ends = sorted(drawn.sample(range(1, size), len(kinds) - 1))
    counts = [end - begin for begin, end in zip([0, *ends], [*ends, size], strict=True)]
    return list(zip(kinds, counts, strict=True))
