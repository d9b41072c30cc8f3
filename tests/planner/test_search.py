"""Searches against brute force over every order of nodes and every choice of legal cuts."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.planner.chains import Chain
from tbcluster.planner.cost import Promise
from tbcluster.planner.nodes import PlanLink, PlanRack
from tbcluster.planner.orders import fixed_chain
from tbcluster.planner.profile import ModelProfile
from tbcluster.planner.replicas import COPY_SLACK, choose, exact_groups
from tbcluster.planner.search import Search
from tbcluster.planner.step_costs import RackCosts
from tests.planner.racks import model, models, node, placements, rack, racks

promises = st.builds(Promise, st.sampled_from([256, 1024]), st.integers(1, 5))
CLOSE = 1e-9


def searched(profile: ModelProfile, on: PlanRack) -> Search:
    return Search(RackCosts(profile, on.nodes, on))


def ranked(trips: list[tuple[float, float]]) -> tuple[float, float]:
    """The least slowest, then the shortest of those that are as slow, rounding aside."""
    slowest = min(pair[0] for pair in trips)
    return slowest, min(total for slow, total in trips if slow <= slowest * (1 + CLOSE))


@settings(max_examples=150)
@given(models(), racks(), promises)
def test_the_best_chain_of_each_length(
    profile: ModelProfile, on: PlanRack, promise: Promise
) -> None:
    search = searched(profile, on)
    assert search.is_exact
    for num_stages in range(1, len(on.nodes) + 1):
        every = [
            (way.slowest_s, way.total_s) for _, way in placements(profile, on, promise, num_stages)
        ]
        chain = search.best(promise, num_stages)
        assert (chain is None) == (not every)
        if chain is not None:
            best = ranked(every)
            # The slowest of a chain may be anything up to rounding; the trip is compared under it.
            assert chain.slowest_s == pytest.approx(best[0], rel=CLOSE)
            assert chain.trip_s == pytest.approx(best[1], rel=1e-6)


@settings(max_examples=100)
@given(models(), racks(), promises)
def test_whether_it_fits_at_all(profile: ModelProfile, on: PlanRack, promise: Promise) -> None:
    lengths = [
        num_stages
        for num_stages in range(1, len(on.nodes) + 1)
        if any(True for _ in placements(profile, on, promise, num_stages))
    ]
    if profile.num_visits == 1:
        assert searched(profile, on).least_stages(promise) == min(lengths, default=None)


def best_disjoint(groups: dict[frozenset[str], float], count: int) -> float:
    """The most tokens a second of so many disjoint groups, of all choices."""
    return max(
        (
            sum(groups[group] for group in chosen)
            for chosen in combinations(groups, count)
            if sum(map(len, chosen)) == len(frozenset().union(*chosen))
        ),
        default=0.0,
    )


@settings(max_examples=60, deadline=None)
@given(models(5), racks(), promises, st.integers(2, 3))
def test_the_best_groups(profile: ModelProfile, on: PlanRack, promise: Promise, count: int) -> None:
    """Of every group of nodes the best chain; of all disjoint groups those that are fastest."""
    search = searched(profile, on)
    ways: dict[frozenset[str], list[tuple[float, float]]] = {}
    for num_stages in range(1, len(on.nodes) + 1):
        for stages, way in placements(profile, on, promise, num_stages):
            group = frozenset(stage.node.name for stage in stages)
            ways.setdefault(group, []).append((way.slowest_s, way.total_s))
    speeds = {}
    for group, trips in ways.items():
        chain = Chain((0,) * len(group), (), *ranked(trips))
        speeds[group] = chain.tokens_per_s(promise)
    expected = best_disjoint(speeds, count)
    found = exact_groups(search, promise, None, count)
    if not expected:
        assert found is None
    else:
        assert found is not None
        used = [at for chain in found for at in chain.nodes]
        assert len(used) == len(set(used))
        assert sum(chain.tokens_per_s(promise) for chain in found) == pytest.approx(expected)


def test_one_copy_more_has_to_be_worth_it() -> None:
    """Two copies on two nodes: with slow hops they are much faster than one over both."""
    profile = model(6)
    fast_link = rack(node("a", 400, is_head=True), node("b", 400))
    choice = choose(searched(profile, fast_link), Promise(256, 2), None, None)
    assert choice is not None
    assert set(choice.totals) == {1, 2}
    is_worth_it = choice.totals[2] > choice.totals[1] * COPY_SLACK
    assert len(choice.replicas) == (2 if is_worth_it else 1)
    slow = [node("a", 400, is_head=True), node("b", 400)]
    far = choose(searched(profile, rack(*slow, latency_s=0.05)), Promise(256, 2), 2, None)
    assert far is not None
    assert len(far.replicas) == 1


@settings(max_examples=40, deadline=None)
@given(models(), racks(), promises)
def test_a_fixed_chain_is_cut_as_well_as_can_be(
    profile: ModelProfile, on: PlanRack, promise: Promise
) -> None:
    costs = RackCosts(profile, on.nodes, on)
    nodes = tuple(range(len(on.nodes)))
    every = [
        (way.slowest_s, way.total_s)
        for stages, way in placements(profile, on, promise, len(nodes))
        if tuple(stage.node for stage in stages) == on.nodes
    ]
    chain = fixed_chain(costs, promise, nodes)
    assert (chain is None) == (not every)
    if chain is not None:
        assert (chain.slowest_s, chain.trip_s) == pytest.approx(ranked(every))


def test_a_large_rack_is_planned_by_orders() -> None:
    """20 unequal nodes: not exact, and still never worse than the best of four of them alone."""
    nodes = [node(f"n{at}", 120 + at, 1 + at / 7, is_head=at == 0) for at in range(20)]
    profile, promise = model(24), Promise(256, 4)
    search = searched(profile, rack(*nodes))
    assert not search.is_exact
    few = Search(search.costs, range(8))
    assert few.is_exact
    for num_stages in (5, 8):
        chain, exact = search.best(promise, num_stages), few.best(promise, num_stages)
        assert chain is not None
        assert exact is not None
        polished = search.polished(promise, chain)
        assert (polished.slowest_s, polished.trip_s) <= (chain.slowest_s, chain.trip_s)
        assert polished.slowest_s <= exact.slowest_s * 1.02


def test_equal_nodes_are_not_told_apart() -> None:
    """16 equal nodes are searched exactly: they have 17 subsets."""
    equal = [node("head", 100, is_head=True), *(node(f"n{at}", 100) for at in range(15))]
    search = searched(model(40), rack(*equal))
    assert search.is_exact
    chain = search.best(Promise(256, 4), 16)
    assert chain is not None
    assert sorted(chain.nodes) == list(range(16))


def test_a_busy_link_is_worse_than_a_far_one() -> None:
    """From a to b a token occupies the link for 80 ms; from b to a it is 100 ms away."""
    near = rack(node("a", 400), node("b", 400), node("head", 1, is_head=True))
    slow, far = PlanLink(0.0, 1.25e4), PlanLink(0.1, 1e9)
    on = PlanRack(near.nodes, {**near.links, ("a", "b"): slow, ("b", "a"): far})
    chain = searched(model(4), on).best(Promise(256, 2), 2)
    assert chain is not None
    assert chain.nodes == (1, 0)
    assert chain.slowest_s < 0.08 < 0.1 < chain.trip_s
