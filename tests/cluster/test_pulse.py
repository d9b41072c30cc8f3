"""Who is killed and who is not, for any order and time of signs of life and looks."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.pulse import MAX_TICK_S, TICK_S, Patience, Pulse
from tbcluster.wire.control import Beat, Loading, Ready, Report

READY = Ready(1, "CPU")
PATIENCE = Patience(starting_s=60.0, ready_s=5.0, load_stall_s=300.0)
STEP_LIMIT_S = 30.0
SILENT = "it did not answer for 5 s"
STUCK = "a step took longer than 30 s"
LONG_PAUSE_S = 10_000.0

ticks = st.floats(0.01, MAX_TICK_S)


@dataclass
class Watched:
    """A worker's pulse and the time that passes."""

    pulse: Pulse
    now: float = 0.0

    def passes(self, seconds: float, *reports: Report, tick_s: float = TICK_S) -> str | None:
        """Time in which the worker says this after each look; why it is killed meanwhile."""
        end = self.now + seconds
        while self.now < end:
            self.now += tick_s
            why = self.pulse.ticked(self.now)
            if why is not None:
                return why
            for report in reports:
                self.pulse.heard(report)
        return None

    def sleeps(self) -> str | None:
        """The watcher does not run for a long time; the worker is looked at before it is heard."""
        self.now += LONG_PAUSE_S
        return self.pulse.ticked(self.now)


def new(*said: Report, step_limit_s: float = STEP_LIMIT_S) -> Watched:
    pulse = Pulse(0.0, step_limit_s, PATIENCE)
    for report in said:
        pulse.heard(report)
    return Watched(pulse)


@given(st.lists(ticks | st.just(LONG_PAUSE_S), max_size=200), st.data())
def test_one_that_answers_lives_however_looks_jitter(
    gaps: list[float], data: st.DataObject
) -> None:
    """It beats often enough, and its steps end in time, as long as anything on the machine runs."""
    worker = new(READY)
    awake_s = beat_at = step_at = 0.0
    num_steps = 0
    for gap in gaps:
        worker.now += gap
        awake_s += min(gap, MAX_TICK_S)
        assert worker.pulse.ticked(worker.now) is None
        if awake_s - step_at > STEP_LIMIT_S - MAX_TICK_S:
            num_steps, step_at = num_steps + 1, awake_s
        if awake_s - beat_at > PATIENCE.ready_s - 2 * MAX_TICK_S or data.draw(st.booleans()):
            beat_at = awake_s
            # Its own clock may go on when nothing runs.
            worker.pulse.heard(Beat(num_steps, data.draw(st.floats(0.0, LONG_PAUSE_S))))


@given(st.lists(ticks, min_size=20, max_size=20), st.integers(0, 10), st.booleans())
def test_a_silent_one_is_killed_in_time(gaps: list[float], num_pauses: int, is_ready: bool) -> None:
    worker = new(READY) if is_ready else new(Loading(1, 2))
    limit_s = PATIENCE.ready_s if is_ready else PATIENCE.starting_s
    awake_s, why = 0.0, None
    while why is None:
        for gap in gaps:
            worker.now += gap
            awake_s += gap
            why = worker.pulse.ticked(worker.now)
            if why is not None:
                break
        if why is None and num_pauses:
            num_pauses -= 1
            awake_s += MAX_TICK_S
            why = worker.sleeps()
    assert why == f"it did not answer for {limit_s:g} s"
    assert awake_s <= limit_s + 2 * MAX_TICK_S


def test_a_step_that_takes_too_long_is_the_end() -> None:
    worker = new(READY)
    assert worker.passes(100.0, Beat(7, 0.0)) is None
    assert worker.passes(STEP_LIMIT_S, Beat(7, STEP_LIMIT_S)) is None
    assert worker.passes(2.0, Beat(7, STEP_LIMIT_S + 0.1)) == STUCK


def test_steps_in_quick_succession_are_none() -> None:
    worker = new(READY)
    for num_steps in range(100):
        assert worker.passes(TICK_S, Beat(num_steps, STEP_LIMIT_S + 1)) is None


def test_without_a_limit_no_step_takes_too_long() -> None:
    worker = new(READY, step_limit_s=0.0)
    assert worker.passes(1000.0, Beat(1, 1000.0)) is None
    worker.pulse.step_limit_s = 2000.0
    assert worker.passes(1003.0, Beat(1, 2003.0)) == "a step took longer than 2000 s"


def test_a_load_that_gets_no_further_is_the_end() -> None:
    worker = new()
    assert worker.passes(299.0, Beat(0)) is None
    assert worker.passes(299.0, Beat(0), Loading(0, 10)) is None
    worker.pulse.heard(Loading(5, 10))
    assert worker.passes(299.0, Beat(0)) is None
    assert worker.passes(2.0, Beat(0)) == "its loading got no further for 300 s"


def test_one_that_is_loaded_may_idle() -> None:
    assert new(Loading(5, 5), READY).passes(10_000.0, Beat(0), tick_s=1.0) is None


@pytest.mark.parametrize("said", [(), (Loading(1, 2),)])
def test_until_it_is_ready_there_is_more_patience(said: tuple[Report, ...]) -> None:
    worker = new(*said)
    assert worker.passes(59.0) is None
    worker.pulse.heard(READY)
    assert worker.passes(4.0) is None
    assert worker.passes(2.0) == SILENT


def test_the_watchers_own_sleep_does_not_count() -> None:
    worker = new(READY)
    assert worker.passes(3.0) is None
    for _ in range(20):
        assert worker.sleeps() is None
        # What it said meanwhile is read now.
        worker.pulse.heard(Beat(1, LONG_PAUSE_S))
    assert worker.passes(3.0, Beat(1, LONG_PAUSE_S)) is None
