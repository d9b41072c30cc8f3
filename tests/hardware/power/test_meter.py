"""How watts become joules, and joules watts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.hardware.power.meter import MAX_GAP_S, Pace, Reading, Together, WattsCount


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Said:
    """A meter that says what it was given."""

    def __init__(self, source: str, reading: Reading) -> None:
        self.source = source
        self.reading = reading
        self.is_closed = False

    def read(self) -> Reading:
        return self.reading

    def close(self) -> None:
        self.is_closed = True


def test_watts_hold_until_the_next_ones() -> None:
    clock = Clock()
    count = WattsCount(clock)
    assert count.reading() == Reading()
    count.add(10.0)
    clock.now += 2
    assert count.reading(51.0) == Reading(20.0, 10.0, 51.0)
    count.add(30.0)
    clock.now += 1
    assert count.reading() == Reading(50.0, 30.0, None)


def test_a_meter_that_fell_silent_says_nothing_and_nothing_is_made_up_for_it() -> None:
    clock = Clock()
    count = WattsCount(clock)
    count.add(10.0)
    clock.now += MAX_GAP_S + 1
    assert count.reading() == Reading()
    count.add(10.0)
    assert count.reading().joules == 10.0 * MAX_GAP_S


@pytest.mark.parametrize("watts", [math.nan, math.inf, -1.0])
def test_what_is_no_number_of_watts_is_passed_over(watts: float) -> None:
    count = WattsCount(Clock())
    count.add(watts)
    assert count.reading() == Reading()


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0.1, 4.9)), min_size=1, max_size=30))
def test_joules_never_fall_and_are_watts_times_seconds(said: list[tuple[float, float]]) -> None:
    clock = Clock()
    count = WattsCount(clock)
    last = 0.0
    for watts, seconds in said:
        count.add(watts)
        clock.now += seconds
        joules = count.reading().joules
        assert joules is not None
        assert joules >= last - 1e-9
        last = joules
    assert last == pytest.approx(sum(watts * seconds for watts, seconds in said))


def test_watts_are_the_mean_between_two_looks() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.watts(5.0) is None
    clock.now += 2
    assert pace.watts(25.0) == 10.0
    assert pace.watts(25.0) == 10.0  # at the same moment


def test_several_meters_are_added_up() -> None:
    one, two = Said("rapl", Reading(10.0, 1.0, 40.0)), Said("nvml", Reading(5.0, 2.0, 60.0))
    both = Together((one, two))
    assert both.source == "rapl+nvml"
    assert both.read() == Reading(15.0, 3.0, 60.0)
    two.reading = Reading()
    assert both.read() == Reading(None, None, 40.0)
    both.close()
    assert one.is_closed
    assert two.is_closed
