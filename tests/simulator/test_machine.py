"""Machines on a virtual clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.simulator.events import Events
from tbcluster.simulator.machine import SimulatedMachine


def ends(jobs: list[tuple[float, float]], at_once: float) -> list[float]:
    """When each of the jobs, (begin, seconds), has ended."""
    events = Events()
    machine = SimulatedMachine(events, at_once)
    ended = [0.0] * len(jobs)

    def begin(number: int, seconds: float) -> None:
        machine.compute(seconds, lambda: ended.__setitem__(number, events.now))

    for number, (begin_s, seconds) in enumerate(jobs):
        events.at(begin_s, lambda number=number, seconds=seconds: begin(number, seconds))  # type: ignore[misc]
    while events.run_next():
        pass
    return ended


def test_what_happens_at_one_time_keeps_its_order() -> None:
    events, seen = Events(), []
    for number in range(5):
        events.at(1.0, lambda number=number: seen.append(number))  # type: ignore[misc]
    events.at(0.5, lambda: seen.append(-1))
    while events.run_next():
        pass
    assert seen == [-1, 0, 1, 2, 3, 4]
    assert events.now == 1.0


def test_nothing_happens_after_the_end() -> None:
    events = Events()
    events.at(2.0, lambda: None)
    assert not events.run_next(until_s=1.0)
    assert events.now == 0.0


def test_two_jobs_of_a_gpu_share_it() -> None:
    assert ends([(0, 2), (0, 2)], at_once=1) == pytest.approx([4, 4])
    # One second alone, then both at half speed.
    assert ends([(0, 2), (1, 2)], at_once=1) == pytest.approx([3, 4])


def test_cores_are_not_shared_while_there_are_enough() -> None:
    assert ends([(0, 2), (1, 2)], at_once=2) == pytest.approx([2, 3])
    assert ends([(0, 3)] * 3, at_once=1.5) == pytest.approx([6, 6, 6])


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.001, 5)), min_size=1, max_size=8),
    st.sampled_from([1.0, 1.7, 2.0, 4.0]),
)
def test_no_work_is_lost_or_made_up(jobs: list[tuple[float, float]], at_once: float) -> None:
    ended = ends(jobs, at_once)
    total = sum(seconds for _, seconds in jobs)
    for (begin_s, seconds), end_s in zip(jobs, ended, strict=True):
        assert end_s >= begin_s + seconds - 1e-6
        # However crowded it is, it always does what it can.
        assert end_s <= max(begin for begin, _ in jobs) + total + 1e-6
