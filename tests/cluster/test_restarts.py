"""The restart budget on a clock that is set by hand."""

from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.restarts import RestartBudget


def test_so_many_and_no_more() -> None:
    budget = RestartBudget(max_restarts=3, window_s=10)
    assert [budget.take(now) for now in (0, 1, 2, 3, 9.9)] == [True, True, True, False, False]


def test_each_restart_is_forgotten_after_the_window() -> None:
    budget = RestartBudget(max_restarts=2, window_s=10)
    assert [budget.take(now) for now in (0, 6, 9.9)] == [True, True, False]
    assert [budget.take(now) for now in (10, 15.9, 16)] == [True, False, True]


def test_a_refusal_does_not_count() -> None:
    budget = RestartBudget(max_restarts=1, window_s=10)
    assert budget.take(0)
    assert not budget.take(9)
    assert budget.take(10)


@given(st.lists(st.integers(0, 20), max_size=40), st.integers(1, 4), st.integers(1, 30))
def test_no_window_holds_more(pauses: list[int], most: int, window: int) -> None:
    budget = RestartBudget(most, window)
    allowed: list[int] = []
    now = 0
    for pause in pauses:
        now += pause
        num_recent = sum(now - window < time <= now for time in allowed)
        is_allowed = budget.take(now)
        assert is_allowed == (num_recent < most)
        if is_allowed:
            allowed.append(now)
