"""One node's joules, and which of them went into serving."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.energy.node_count import ESTIMATE, MAX_GAP_S, NodeCount, NodeEnergy


def metered(joules: float, watts: float | None = None) -> NodeEnergy:
    return NodeEnergy(joules, watts, "rapl")


def begun(said: NodeEnergy) -> NodeCount:
    node = NodeCount()
    node.begin(said)
    return node


def test_a_meters_own_count_is_taken_and_not_its_watts() -> None:
    node = begun(metered(1000.0, 5.0))
    drawn = node.add(metered(1030.0, 99.0), 2.0, 1.0)
    assert drawn is not None
    assert (drawn.joules, drawn.serving, drawn.is_estimate) == (30.0, 15.0, False)
    assert (node.joules, node.watts, node.source) == (30.0, 99.0, "rapl")


def test_an_agent_that_was_started_again_counts_from_zero() -> None:
    node = begun(metered(1000.0))
    drawn = node.add(metered(7.0), 1.0, 0.0)
    assert drawn is not None
    assert drawn.joules == 7.0


def test_without_a_count_watts_hold_for_the_time_between_but_not_for_ever() -> None:
    estimate = NodeEnergy(None, 40.0, ESTIMATE)
    node = begun(estimate)
    drawn = node.add(estimate, 2.0, 0.5)
    assert drawn is not None
    assert (drawn.joules, drawn.serving, drawn.is_estimate) == (80.0, 20.0, True)
    drawn = node.add(estimate, 3600.0, 0.0)
    assert drawn is not None
    assert drawn.joules == 40.0 * MAX_GAP_S


def test_what_it_counts_while_nobody_hears_it_is_nobodys() -> None:
    node = begun(metered(10.0, 5.0))
    node.miss()
    assert node.watts is None
    drawn = node.add(metered(5000.0, 5.0), 1.0, 1.0)
    assert drawn is not None
    assert drawn.joules == 5.0  # by its watts: there is no count to begin from


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, None])
def test_what_is_no_number_is_not_known(value: float | None) -> None:
    node = begun(NodeEnergy())
    assert node.add(NodeEnergy(value, value, "rapl"), 1.0, 0.5) is None
    assert (node.joules, node.watts) == (0.0, None)


def test_a_step_of_many_seconds_reaches_back_into_those_in_which_nothing_came() -> None:
    node = begun(metered(0.0))
    node.add(metered(10.0), 1.0, 0.0)
    node.add(metered(30.0), 1.0, 0.0)
    drawn = node.add(metered(60.0), 1.0, 2.5)  # all of this one, the last, half of the first
    assert drawn is not None
    assert drawn.serving == pytest.approx(30.0 + 20.0 + 5.0)
    drawn = node.add(metered(60.0), 1.0, 9.0)  # only what is left of the first
    assert drawn is not None
    assert drawn.serving == pytest.approx(5.0)


@given(
    st.lists(
        st.tuples(st.floats(0, 1e4), st.floats(0.01, 10), st.floats(0, 40)), min_size=1, max_size=40
    )
)
def test_serving_never_takes_more_than_was_drawn(looks: list[tuple[float, float, float]]) -> None:
    node = begun(metered(0.0))
    count = serving = 0.0
    for joules, seconds, active_s in looks:
        count += joules
        drawn = node.add(metered(count), seconds, active_s)
        assert drawn is not None
        assert drawn.serving >= 0
        serving += drawn.serving
        assert serving <= count * (1 + 1e-9) + 1e-6
