"""Where the joules went."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.energy.book import Energy, EnergyBook, NodeTotals
from tbcluster.cluster.energy.node_count import ESTIMATE, NodeEnergy
from tbcluster.cluster.energy.work import ModelWork, Work

MODEL = "m"


def node(joules: float) -> NodeEnergy:
    return NodeEnergy(joules, None, "rapl")


def did(compute_s: float, active_s: float, num_tokens: int = 0, name: str = "a") -> ModelWork:
    return ModelWork({name: Work(compute_s, active_s)}, num_tokens)


def a_book() -> EnergyBook:
    book = EnergyBook()
    book.add(0.0, {"a": node(0.0), "b": node(0.0)}, {})
    return book


def test_before_a_whole_interval_nothing_is_known() -> None:
    book = a_book()
    assert book.joules_between(0.0, 1.0) is None
    assert book.joules_per_token(0.0, 1.0) is None
    assert book.per_compute_s(MODEL, 0.0, 1.0) is None
    assert book.charge(MODEL, 1.0) is None


def test_joules_of_serving_are_those_in_which_steps_were_on_their_way() -> None:
    book = a_book()
    book.add(2.0, {"a": node(40.0), "b": node(30.0)}, {MODEL: did(0.5, 1.0, 10)})
    assert book.joules_between(0.0, 2.0) == 20.0  # b has no stage
    assert book.joules_per_token(0.0, 2.0) == 2.0
    assert book.per_compute_s(MODEL, 0.5, 0.6) == Energy(40.0, False)
    assert book.nodes() == {
        "a": NodeTotals(None, 40.0, "rapl"),
        "b": NodeTotals(None, 30.0, "rapl"),
    }


def test_only_the_intervals_that_a_time_touches_count() -> None:
    book = a_book()
    for second in range(1, 5):
        joules = {"a": node(second * (second + 1) / 2)}  # 1, 2, 3 and 4 of them
        book.add(float(second), joules, {MODEL: did(1.0, 1.0, 1)})
    assert book.joules_between(1.5, 2.5) == pytest.approx(2.0 + 3.0)
    assert book.joules_between(3.0, 9.0) == pytest.approx(4.0)
    assert book.joules_between(7.0, 9.0) is None


def test_a_request_that_ended_before_an_interval_did_is_told_by_the_newest_one() -> None:
    book = a_book()
    book.add(1.0, {"a": node(10.0)}, {MODEL: did(0.5, 1.0)})
    book.add(2.0, {"a": node(15.0)}, {MODEL: did(0.0, 0.0)})
    assert book.per_compute_s(MODEL, 2.1, 2.2) == Energy(20.0, False)
    assert book.per_compute_s("another", 2.1, 2.2) is None


def test_a_node_that_is_not_known_makes_its_models_joules_unknown_and_no_others() -> None:
    book = EnergyBook()
    nothing = NodeEnergy()
    book.add(0.0, {"a": node(0.0), "b": nothing}, {})
    work = {MODEL: did(1.0, 1.0, 1), "other": did(1.0, 1.0, 1, "b")}
    book.add(1.0, {"a": node(10.0), "b": nothing}, work)
    assert book.per_compute_s(MODEL, 0.0, 1.0) == Energy(10.0, False)
    assert book.per_compute_s("other", 0.0, 1.0) is None
    assert book.charge("other", 1.0) is None
    assert book.joules_between(0.0, 1.0) is None
    assert "b" not in book.nodes()


def test_an_estimate_is_told_as_one() -> None:
    book = EnergyBook()
    said = {"a": NodeEnergy(None, 20.0, ESTIMATE)}
    book.add(0.0, said, {})
    book.add(1.0, said, {MODEL: did(0.5, 0.5)})
    energy = book.per_compute_s(MODEL, 0.0, 1.0)
    assert energy == Energy(20.0, True)
    assert energy.source == "estimate"


def test_models_share_a_node_by_the_time_they_computed() -> None:
    book = a_book()
    work = {"one": did(0.6, 1.0), "two": did(0.2, 1.0)}
    book.add(1.0, {"a": node(80.0)}, work)
    assert book.joules_between(0.0, 1.0) == pytest.approx(80.0)  # once, though both were active
    one, two = book.charge("one", 0.6), book.charge("two", 0.2)
    assert one is not None
    assert two is not None
    assert (one.joules, two.joules) == (pytest.approx(60.0), pytest.approx(20.0))


def test_what_nobody_asked_for_is_written_off() -> None:
    book = a_book()
    book.add(1.0, {"a": node(80.0)}, {MODEL: did(1.0, 1.0)})
    book.write_off(MODEL)
    book.add(2.0, {"a": node(90.0)}, {MODEL: did(1.0, 1.0)})
    assert book.charge(MODEL, 1.0) == Energy(10.0, False)


seconds_of_work = st.lists(
    # Joules that the node drew in a second, and microseconds that each of four streams computed.
    st.tuples(st.floats(0, 300), st.lists(st.integers(0, 250_000), min_size=4, max_size=4)),
    min_size=1,
    max_size=20,
)


@given(seconds_of_work, st.lists(st.integers(0, 19), min_size=4, max_size=4))
def test_requests_together_pay_what_serving_took_whatever_ran_beside_them(
    seconds: list[tuple[float, list[int]]], ends: list[int]
) -> None:
    """Each stream is cut into two requests, of which the first ends after `ends` seconds."""
    book = EnergyBook()
    book.add(0.0, {"a": node(0.0)}, {})
    drawn = paid = 0.0
    unpaid = [0.0] * 4
    last = len(seconds) - 1
    for number, (joules, computed_us) in enumerate(seconds):
        computed = [us / 1e6 for us in computed_us]
        drawn += joules
        unpaid = [left + compute_s for left, compute_s in zip(unpaid, computed, strict=True)]
        book.add(number + 1.0, {"a": node(drawn)}, {MODEL: did(sum(computed), sum(computed))})
        for stream, compute_s in enumerate(unpaid):
            if compute_s and number in (ends[stream], last):
                energy = book.charge(MODEL, compute_s)
                assert energy is not None
                assert energy.joules >= 0
                paid += energy.joules
                unpaid[stream] = 0.0
    serving = book.joules_between(0.0, last + 1.0)
    if any(sum(computed) for _, computed in seconds):
        assert paid == pytest.approx(serving, rel=1e-6, abs=1e-6)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=10), st.floats(0.1, 500))
def test_by_the_time_they_ran_requests_that_ran_together_pay_the_same(
    computed: list[float], watts: float
) -> None:
    book = EnergyBook()
    book.add(0.0, {"a": node(0.0)}, {})
    total = sum(computed)
    book.add(total, {"a": node(watts * total)}, {MODEL: did(total, total)})
    rate = book.per_compute_s(MODEL, 0.0, total)
    assert rate is not None
    assert sum(rate.joules * one for one in computed) == pytest.approx(watts * total)


def test_a_second_that_is_not_known_is_forgotten_as_requests_pay() -> None:
    """A server that is never idle has no other end to it."""
    book = EnergyBook()
    book.add(0.0, {"a": node(0.0)}, {})
    book.add(1.0, {"a": node(10.0)}, {MODEL: did(1.0, 1.0)})
    book.add(2.0, {}, {MODEL: did(1.0, 1.0)})
    assert book.charge(MODEL, 1.0) == Energy(10.0, True)
    for second in range(3, 13):  # the first of them is told as the meter's new beginning
        book.add(float(second), {"a": node(10.0 * second)}, {MODEL: did(1.0, 1.0)})
        paid = book.charge(MODEL, 1.5)
    assert paid is not None
    assert paid.joules == pytest.approx(15.0, rel=0.5)
    assert not paid.is_estimate


def test_what_is_mostly_not_known_has_no_price() -> None:
    book = EnergyBook()
    book.add(0.0, {"a": node(0.0)}, {})
    book.add(1.0, {"a": node(10.0)}, {MODEL: did(0.1, 0.1)})
    book.add(2.0, {}, {MODEL: did(1.0, 1.0)})
    assert book.charge(MODEL, 0.5) is None
