"""When the join port takes a break."""

from tbcluster.cluster.trust.refusals import BREAK_S, MAX_REFUSALS, WINDOW_S, Refusals


def test_many_within_a_minute_call_for_a_break() -> None:
    refusals = Refusals()
    assert [refusals.add(float(i)) for i in range(MAX_REFUSALS)] == [False] * 9 + [True]
    last = MAX_REFUSALS - 1.0
    assert refusals.is_break(last)
    assert refusals.is_break(last + BREAK_S - 0.1)
    assert not refusals.is_break(last + BREAK_S)
    # The count begins anew.
    assert not refusals.add(last + BREAK_S)
    assert not refusals.is_break(last + BREAK_S)


def test_few_a_minute_do_not() -> None:
    refusals = Refusals()
    pause = WINDOW_S / (MAX_REFUSALS - 2)
    assert not any(refusals.add(i * pause) for i in range(100))
