"""Clocks of stages against the coordinator's, from what could not have been otherwise."""

import pytest
from hypothesis import given

from tbcluster.core import VisitTiming
from tbcluster.tracing.clocks import BUCKET_S, Clocks, offsets, parts
from tbcluster.tracing.records import StepRecord
from tests.tracing.worlds import US_PER_S, World, step, worlds

# Of times that are kept as floats of seconds, twelve days after the clock began.
ROUNDING_US = 1.0


@given(worlds())
def test_the_truth_lies_within_the_error_that_is_told(world: World) -> None:
    found = offsets(world.records, len(world.clocks_us))
    for offset, truth_us in zip(found, world.clocks_us, strict=True):
        assert abs(offset.offset_us - truth_us) <= offset.error_us + ROUNDING_US


@given(worlds())
def test_the_error_is_no_more_than_half_of_the_fastest_trips_wires(world: World) -> None:
    fastest_us = min(sum(wires_us) for wires_us in world.wires_us)
    for offset in offsets(world.records, len(world.clocks_us)):
        assert offset.error_us <= fastest_us / 2 + ROUNDING_US


@given(worlds())
def test_parts_fill_the_time_that_a_step_was_away(world: World) -> None:
    clocks = Clocks(world.records)
    for record in world.records:
        found, return_s = parts(record, clocks.of(record))
        total = sum(part.wire_s + part.queue_s + part.compute_s for part in found) + return_s
        assert total == pytest.approx(record.back_at - record.sent_at, abs=ROUNDING_US / US_PER_S)
        assert return_s >= 0
        assert all(min(part.wire_s, part.queue_s, part.compute_s) >= 0 for part in found)
        assert [part.begun_at for part in found] == sorted(part.begun_at for part in found)


def test_on_the_coordinators_own_clock_every_way_is_exact() -> None:
    record = step(0, 5_000_000, (0, 0), (100, 300, 50), (1000, 2000))
    found, return_s = parts(record, offsets([record], 2))
    assert [round(part.wire_s * US_PER_S) for part in found] == [100, 300]
    assert [round(part.compute_s * US_PER_S) for part in found] == [1000, 2000]
    assert round(return_s * US_PER_S) == 50


def test_a_slow_way_and_a_fast_way_back_narrow_it_down() -> None:
    clock_us = 77_000_000
    slow_there = step(0, 5_000_000, (clock_us,), (900, 10), (500,))
    slow_back = step(1, 5_010_000, (clock_us,), (10, 900), (500,))
    (offset,) = offsets([slow_there, slow_back], 1)
    assert offset.offset_us == pytest.approx(clock_us)
    assert offset.error_us == pytest.approx(10)


def test_steps_of_other_seconds_say_nothing_of_a_clock_that_drifts() -> None:
    early = step(0, 0, (5_000_000,), (10, 10), (500,))
    late = step(1, int(2 * BUCKET_S * US_PER_S), (5_001_000,), (10, 10), (500,))
    clocks = Clocks([early, late])
    assert clocks.of(early)[0].offset_us == pytest.approx(5_000_000)
    assert clocks.of(late)[0].offset_us == pytest.approx(5_001_000)


def test_steps_of_another_epoch_say_nothing_of_a_clock_that_was_another_machines() -> None:
    early = step(0, 0, (5_000_000,), (10, 10), (500,))
    late = step(1, 1_000_000, (900_000_000,), (10, 10), (500,), epoch=1)
    clocks = Clocks([early, late])
    assert clocks.of(early)[0].offset_us == pytest.approx(5_000_000)
    assert clocks.of(late)[0].offset_us == pytest.approx(900_000_000)


def test_a_step_that_came_while_others_were_computed_lay_in_a_queue() -> None:
    timing = VisitTiming(1000, 0, 5_000_700, 5_001_700)
    record = StepRecord(0, 0, 1, 5.0, 5.0018, False, 1, ("a",), (timing,), None)
    ((part,), _) = parts(record, offsets([record], 1))
    assert (part.wire_s, round(part.queue_s * US_PER_S)) == (0, 700)


def test_stages_without_a_clock_have_no_parts() -> None:
    record = StepRecord(0, 0, 1, 5.0, 5.1, False, 1, ("a",), (VisitTiming(1000, 0),), None)
    assert parts(record, offsets([record], 1)) == ((), pytest.approx(0.1))
