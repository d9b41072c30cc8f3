"""The smallest rack that is fast enough, against planning every size of it."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.errors import PlanError
from tbcluster.planner.capacity import Goal, addition, rack_figures, smallest_rack
from tbcluster.planner.nodes import NodePower, PlanRack
from tbcluster.planner.plan import Wishes
from tbcluster.planner.planning import make_plan
from tests.planner.racks import model, node, rack

MODEL = model(12)
POWER = NodePower(10, 40, 90)
ONE = Wishes(context=256, streams=1)
EIGHT = Wishes(context=256, streams=8)


def equal(number: int, memory_mb: float = 80) -> PlanRack:
    """So many equal nodes, three of which hold the model."""
    nodes = [node(f"n{at}", memory_mb, is_head=at == 0) for at in range(number)]
    return rack(*(replace(one, power=POWER, price_usd=1000.0) for one in nodes))


def figures(number: int, wishes: Wishes) -> tuple[float, float] | None:
    found = rack_figures(MODEL, equal(number), wishes)
    return None if found is None else (found.stream_tokens_per_s, found.tokens_per_s)


@cache
def all_rates(is_total: bool) -> dict[int, float]:
    """Of racks of up to 12 nodes that hold the model."""
    wishes = EIGHT if is_total else ONE
    found = {number: figures(number, wishes) for number in range(1, 13)}
    return {number: rates[is_total] for number, rates in found.items() if rates is not None}


@given(st.booleans(), st.floats(0.7, 1.1))
@settings(max_examples=20, deadline=None)
def test_one_node_less_would_not_do(is_total: bool, part: float) -> None:
    wishes = EIGHT if is_total else ONE
    rates = all_rates(is_total)
    tokens_per_s = part * max(rates.values())
    found = smallest_rack(MODEL, equal, Goal(tokens_per_s, wishes, is_total, max_nodes=12))
    if found.figures is None:
        assert found.because
        assert found.best is not None
        assert max(rates.values()) < tokens_per_s
        return
    number = found.figures.num_nodes
    assert rates[number] >= tokens_per_s
    assert rates.get(number - 1, 0.0) < tokens_per_s


def one_machine(number: int) -> PlanRack:
    """So many times as fast as the first one: each size is faster than the one before."""
    fast = node("n", 400, 1 / number, is_head=True)
    return rack(replace(fast, speed=replace(fast.speed, layer_s=0.0, stage_s=0.0)))


@given(st.integers(1, 64), st.booleans(), st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_where_more_is_faster_the_first_that_does_is_found(
    wanted: int, is_total: bool, most: int
) -> None:
    figures = rack_figures(MODEL, one_machine(wanted), ONE)
    assert figures is not None
    sizes: list[int] = []

    def rack_of(number: int) -> PlanRack:
        sizes.append(number)
        return one_machine(number)

    found = smallest_rack(MODEL, rack_of, Goal(figures.tokens_per_s, ONE, is_total, most))
    assert (found.figures is not None) == (wanted <= most)
    assert max(sizes) <= most
    if found.figures is not None:
        assert found.figures.tokens_per_s == figures.tokens_per_s


def test_one_stream_gets_no_faster_by_more_nodes() -> None:
    least = next(n for n in range(1, 9) if figures(n, ONE) is not None)
    best = figures(least, ONE)
    assert best is not None
    found = smallest_rack(MODEL, equal, Goal(best[0] * 1.01, ONE, max_nodes=8))
    assert found.figures is None
    assert found.best is not None
    assert found.best.num_nodes == least > 1
    assert f"{least} nodes hold the model" in found.because
    assert "only adds a hop" in found.because


def test_more_streams_together_take_more_nodes() -> None:
    least = next(n for n in range(1, 17) if figures(n, EIGHT) is not None)
    alone = figures(least, EIGHT)
    assert alone is not None
    found = smallest_rack(MODEL, equal, Goal(alone[1] * 1.2, EIGHT, is_total=True, max_nodes=16))
    assert found.figures is not None
    assert found.figures.num_nodes > least
    assert "hold it" in found.because


def test_no_rack_that_is_looked_at_holds_it() -> None:
    found = smallest_rack(MODEL, lambda n: equal(n, 20), Goal(1, ONE, max_nodes=2))
    assert (found.figures, found.best) == (None, None)
    assert found.because == "2 nodes do not hold it"


def test_watts_and_price_are_of_all_nodes_and_unknown_if_one_is() -> None:
    idle = node("idle", 1)
    three = equal(3)
    known = replace(three, nodes=(*three.nodes, replace(idle, power=POWER, price_usd=500.0)))
    found = rack_figures(MODEL, known, ONE)
    assert found is not None
    assert (found.num_nodes, found.num_used) == (4, 3)
    assert found.price_usd == 3500
    # One stream is on one node at a time: of three used ones two thirds of the time are idle.
    assert found.power_w is not None
    assert 4 * 10 < found.power_w < 4 * 10 + (40 - 10) * 1.01
    two = rack_figures(MODEL, known, replace(ONE, streams=2))
    assert two is not None
    assert two.power_w is not None
    assert two.power_w > found.power_w * 1.2
    unknown = rack_figures(MODEL, replace(three, nodes=(*three.nodes, idle)), ONE)
    assert unknown is not None
    assert (unknown.power_w, unknown.price_usd) == (None, None)


def test_what_a_node_adds_is_what_a_plan_says() -> None:
    found = addition(MODEL, equal(2), equal(8), EIGHT)
    assert found.now is None
    assert found.then is not None
    plan = make_plan(MODEL, equal(8), EIGHT)
    assert found.then.tokens_per_s == sum(r.tokens_per_s for r in plan.replicas)
    assert found.then.longest_context == max(r.longest_context for r in plan.replicas)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 2e6])
def test_speeds_that_nothing_has_are_refused(rate: float) -> None:
    with pytest.raises(PlanError, match=r"tokens/s: ask for more than 0"):
        smallest_rack(MODEL, equal, Goal(rate, ONE))


def test_promises_out_of_range_are_refused() -> None:
    with pytest.raises(PlanError, match="was made for"):
        smallest_rack(MODEL, equal, Goal(1, Wishes(context=10**6, streams=1)))
    with pytest.raises(PlanError, match="65 nodes"):
        smallest_rack(MODEL, equal, Goal(1, ONE, max_nodes=65))
