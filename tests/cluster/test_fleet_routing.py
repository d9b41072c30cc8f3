"""Requests of a fleet: by speed, to what is up, near first; as `routing.choose` on each level."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.fleet_routing import FleetRouter, LeastLoaded
from tbcluster.cluster.routing import Candidate, choose
from tbcluster.planner.fleet import Fleet, FleetSite, plan_fleet
from tbcluster.planner.nodes import PlanLink
from tbcluster.planner.plan import Wishes
from tbcluster.planner.pod_plans import PodPlans
from tests.planner.racks import model, node, rack

MODEL = model(4)
WISHES = Wishes(context=256, streams=1)
LINK = PlanLink(1e-3, 1e8)


def site(name: str, region: str, *slowness: float, memory_mb: float = 90) -> FleetSite:
    """A node for each slowness, each of which holds a copy: hops are too slow for pipelines."""
    nodes = [node(f"n{at}", memory_mb, slow) for at, slow in enumerate(slowness)]
    return FleetSite(name, region, rack(*nodes, latency_s=0.1))


def router(*sites: FleetSite, **links: PlanLink) -> FleetRouter:
    return FleetRouter(plan_fleet(MODEL, Fleet(sites, links), WISHES))


@pytest.fixture
def mixed() -> FleetRouter:
    return router(
        site("a", "west", 1, 1, 1, 1.2),
        site("b", "west", 2),
        site("c", "east", 1, 1.2),
        site("d", "east", 4, 4),
    )


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, math.inf]), min_size=1, max_size=9), st.data())
def test_the_least_is_known_after_any_change(loads: list[float], data: st.DataObject) -> None:
    tree = LeastLoaded(loads)
    for _ in range(6):
        least = min(loads)
        assert tree.place() == (None if least == math.inf else loads.index(least))
        place = data.draw(st.integers(0, len(loads) - 1))
        loads[place] = data.draw(st.sampled_from([0.5, 1.0, 2.5, math.inf]))
        tree.set(place, loads[place])


def test_copies_are_numbered_and_placed(mixed: FleetRouter) -> None:
    assert [copy.index for copy in mixed.copies] == list(range(len(mixed.copies)))
    placed = Counter((copy.region, copy.site) for copy in mixed.copies)
    assert set(placed) == {("west", "a"), ("west", "b"), ("east", "c"), ("east", "d")}
    assert placed["west", "a"] >= 3 > placed["west", "b"] == 1


def test_shares_go_as_speeds_and_none_starves(mixed: FleetRouter) -> None:
    number = 20_000
    served: Counter[int] = Counter()
    for _ in range(number):
        index = mixed.open()
        assert index is not None
        served[index] += 1
    total = sum(copy.tokens_per_s for copy in mixed.copies)
    for copy in mixed.copies:
        assert served[copy.index] / number == pytest.approx(copy.tokens_per_s / total, rel=0.02)
        assert mixed.num_open(copy.index) == served[copy.index]


def test_within_a_pod_it_is_what_choose_takes() -> None:
    one = router(site("a", "west", 1, 2, 3, 5))
    drawn = random.Random(3)
    opened: list[int] = []
    for _ in range(200):
        candidates = [
            Candidate(copy.index, one.num_open(copy.index), copy.tokens_per_s)
            for copy in one.copies
        ]
        index = one.open()
        assert index is not None
        assert candidates[index].load == pytest.approx(candidates[choose(candidates)].load)
        opened.append(index)
        if drawn.random() < 0.4:
            one.close(opened.pop(drawn.randrange(len(opened))))


def test_a_site_that_is_down_is_passed_over_and_comes_back(mixed: FleetRouter) -> None:
    for _ in range(30):
        mixed.open()
    before = [mixed.num_open(copy.index) for copy in mixed.copies]
    mixed.set_site("a", is_up=False)
    opened = [mixed.open() for _ in range(50)]
    assert all(index is not None and mixed.copies[index].site != "a" for index in opened)
    # What ends there, as its clients give up, changes nothing elsewhere.
    for copy in mixed.copies:
        if copy.site == "a":
            for _ in range(before[copy.index]):
                mixed.close(copy.index)
    for _ in range(200):
        mixed.open()
    up = [copy for copy in mixed.copies if copy.site != "a"]
    loads = [(mixed.num_open(copy.index) + 1) / copy.tokens_per_s for copy in up]
    assert max(loads) - min(loads) < 2 / min(copy.tokens_per_s for copy in up)
    mixed.set_site("a", is_up=True)
    back = [mixed.open() for _ in range(20)]
    assert any(index is not None and mixed.copies[index].site == "a" for index in back)


def test_a_region_whose_sites_are_all_down_is_passed_over(mixed: FleetRouter) -> None:
    for name in ("a", "b"):
        mixed.set_site(name, is_up=False)
    opened = [mixed.open(near="west") for _ in range(20)]
    assert all(index is not None and mixed.copies[index].region == "east" for index in opened)
    for name in ("c", "d"):
        mixed.set_site(name, is_up=False)
    assert mixed.open() is None
    assert mixed.open(near="west", holder=0, num_known=500) is None
    mixed.set_site("b", is_up=True)
    index = mixed.open()
    assert index is not None
    assert mixed.copies[index].site == "b"


def test_a_copy_that_is_down_gets_nothing(mixed: FleetRouter) -> None:
    mixed.set_copy(0, is_up=False)
    assert 0 not in {mixed.open(holder=0, num_known=500) for _ in range(100)}
    mixed.set_copy(0, is_up=True)
    assert mixed.open(holder=0, num_known=500) == 0


def test_near_requests_stay_near_until_it_is_overloaded(mixed: FleetRouter) -> None:
    first = [mixed.open(near="east") for _ in range(4)]
    assert all(index is not None and mixed.copies[index].region == "east" for index in first)
    rest = Counter(
        mixed.copies[index].region
        for _ in range(1000)
        if (index := mixed.open(near="east")) is not None
    )
    assert rest["east"] > rest["west"] > 100


def test_a_prefix_is_followed_until_its_copy_is_overloaded(mixed: FleetRouter) -> None:
    holder = len(mixed.copies) - 1
    assert mixed.open(holder=holder, num_known=31) != holder
    assert mixed.open(holder=holder, num_known=32) == holder
    opened = [mixed.open(holder=holder, num_known=500) for _ in range(100)]
    assert 4 <= opened.count(holder) < 50


def test_a_joined_pipeline_is_down_while_one_of_its_sites_is() -> None:
    half = 0.7 * PodPlans(MODEL, WISHES).copy_bytes / 1e6
    small = [site(name, "west", 1, memory_mb=half) for name in ("a", "b")]
    one = router(*small, west=LINK)
    (copy,) = one.copies
    assert copy.site == "west 1"
    for name in ("a", "b"):
        one.set_site(name, is_up=False)
    one.set_site("a", is_up=True)
    assert one.open() is None
    one.set_site("b", is_up=True)
    assert one.open() == 0


def test_a_fleet_without_copies_or_with_an_unknown_site() -> None:
    empty = router(site("a", "west", 1, memory_mb=20))
    assert (empty.copies, empty.open()) == ([], None)
    empty.set_site("a", is_up=False)
    with pytest.raises(KeyError):
        empty.set_site("b", is_up=False)


def test_sums_stay_exact_however_often_sites_come_and_go(mixed: FleetRouter) -> None:
    for _ in range(50):
        for name in "abcd":
            mixed.set_site(name, is_up=False)
        assert mixed.open() is None
        for name in "abcd":
            mixed.set_site(name, is_up=True)
    assert mixed.open() is not None
