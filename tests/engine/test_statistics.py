"""What is counted, step by step, and what a snapshot says of it."""

import dataclasses

import pytest

from tbcluster.core import MicroBatch, Sample, SamplingParams, StepResult, VisitTiming
from tbcluster.engine.statistics import Counters, EngineStatistics, StageStatistics, merged


def step(*timings: tuple[int, int], round_trip_us: int = 10**9) -> StepResult:
    """A step that came back; each timing is (compute, wait)."""
    visits = tuple(VisitTiming(*timing) for timing in timings)
    return StepResult(0, MicroBatch(1, (2,)), (), None, visits, round_trip_us)


def snapshot(counters: Counters) -> EngineStatistics:
    return counters.snapshot(0, (0,) * counters.num_stages, (0,) * counters.num_stages)


def times(counted: EngineStatistics) -> list[tuple[int, int]]:
    """Computing and waiting, of each stage."""
    return [(stage.compute_us, stage.idle_us) for stage in counted.stages]


def test_nothing_yet() -> None:
    counted = snapshot(Counters(3))
    assert counted.stages == (StageStatistics(0, 0),) * 3
    assert counted.idle_share == 0.0
    assert (counted.num_steps, counted.own_us, counted.num_generated_tokens) == (0, 0, 0)


def test_each_stage_adds_up_its_own_time() -> None:
    counters = Counters(2)
    counters.count_step(step((10, 1), (20, 2)))
    counters.count_step(step((30, 3), (40, 4)))
    counted = snapshot(counters)
    assert times(counted) == [(40, 4), (60, 6)]
    assert counted.num_steps == 2


def test_the_visits_of_a_looped_model_go_to_their_stages() -> None:
    counters = Counters(2)
    counters.count_step(step((1, 10), (2, 20), (3, 30), (4, 40)))
    assert times(snapshot(counters)) == [(4, 40), (6, 60)]


def test_a_step_that_failed_on_its_way_counts_as_far_as_it_came() -> None:
    counters = Counters(3)
    counters.count_step(step((1, 10)))
    counters.count_step(step())
    counted = snapshot(counters)
    assert times(counted) == [(1, 10), (0, 0), (0, 0)]
    assert counted.num_steps == 2


def test_waiting_for_want_of_requests_is_not_idling() -> None:
    """A stage that waited longer than the step was on its way had nothing to wait for before."""
    counters = Counters(2)
    counters.count_step(step((5, 10**9), (5, 30), round_trip_us=100))
    assert times(snapshot(counters)) == [(5, 100), (5, 30)]


def test_what_no_stage_computed_was_on_the_wire_or_in_a_queue() -> None:
    counters = Counters(2)
    counters.count_step(step((30, 0), (20, 0), round_trip_us=100))
    # Rounded, or on clocks that disagree, computing may seem to take longer than the trip.
    counters.count_step(step((60, 0), (60, 0), round_trip_us=110))
    counted = snapshot(counters)
    assert (counted.round_trip_us, counted.wire_us) == (210, 50)


@pytest.mark.parametrize(
    ("compute_us", "idle_us", "share"), [(0, 0, 0.0), (10, 0, 0.0), (0, 10, 1.0), (30, 10, 0.25)]
)
def test_the_idle_share_of_a_stage(compute_us: int, idle_us: int, share: float) -> None:
    assert StageStatistics(compute_us, idle_us).idle_share == share


def test_the_idle_share_is_that_of_the_busiest_stage() -> None:
    counters = Counters(3)
    counters.count_step(step((50, 50), (90, 10), (60, 40)))
    assert snapshot(counters).idle_share == pytest.approx(0.1)


def test_a_snapshot_holds_what_was_counted_and_what_is_held_now() -> None:
    counters = Counters(2, num_preemptions=3)
    counters.num_prompt_tokens += 40
    counters.num_cached_tokens += 16
    counters.num_generated_tokens += 5
    counters.own_s += 0.0123456
    before = counters.snapshot(2, (10, 20), (100, 200), num_running=7, num_waiting=1)
    counters.num_generated_tokens += 1
    counters.count_step(step((1, 1), (1, 1)))
    assert before == EngineStatistics(
        stages=(StageStatistics(0, 0), StageStatistics(0, 0)),
        num_steps=0,
        own_us=12_346,
        round_trip_us=0,
        wire_us=0,
        num_prompt_tokens=40,
        num_cached_tokens=16,
        num_generated_tokens=5,
        num_preemptions=3,
        num_prefixes=2,
        kv_used_bytes=(10, 20),
        kv_budget_bytes=(100, 200),
        num_running=7,
        num_waiting=1,
    )


def test_two_counters_share_nothing() -> None:
    first, second = Counters(2), Counters(2)
    first.count_step(step((1, 2), (3, 4)))
    assert snapshot(second).stages == (StageStatistics(0, 0),) * 2
    # Every number of a snapshot is one that the counters or the engine know.
    names = {field.name for field in dataclasses.fields(EngineStatistics)}
    known = {field.name for field in dataclasses.fields(Counters)}
    held = {"num_prefixes", "num_running", "num_waiting"}
    assert {name for name in names if name.startswith("num_")} - known == held


@pytest.mark.parametrize("num_stages", [1, 2, 3])
def test_other_stages_count_on(num_stages: int) -> None:
    before = Counters(2)
    before.count_step(step((10, 1), (20, 2), round_trip_us=50))
    before.num_generated_tokens = 5
    counters = before.over(num_stages)
    counters.count_step(step(*[(100, 0)] * num_stages))
    now = snapshot(counters)
    assert times(now) == [(110, 1), (120, 2), (100, 0)][:num_stages]
    assert [stage.num_steps for stage in now.stages] == [2] * num_stages
    assert (now.num_steps, now.num_generated_tokens) == (2, 5)
    assert snapshot(before).num_steps == 1, "whoever reads it meanwhile sees what was"


def test_several_engines_together() -> None:
    first, second = Counters(1), Counters(2)
    first.count_step(step((10, 1), round_trip_us=20))
    second.count_step(step((20, 2), (30, 3), round_trip_us=70))
    first.num_generated_tokens, second.num_generated_tokens = 3, 4
    together = merged([first.snapshot(1, (5,), (9,), 2, 1), second.snapshot(2, (6, 7), (8, 8), 3)])
    assert times(together) == [(10, 1), (20, 2), (30, 3)]
    assert [stage.num_steps for stage in together.stages] == [1, 1, 1]
    assert (together.kv_used_bytes, together.kv_budget_bytes) == ((5, 6, 7), (9, 8, 8))
    assert (together.num_steps, together.round_trip_us, together.wire_us) == (2, 90, 30)
    assert (together.num_generated_tokens, together.num_prefixes) == (7, 3)
    assert (together.num_running, together.num_waiting) == (5, 1)


def test_one_engine_alone_is_what_it_is() -> None:
    counters = Counters(2)
    counters.count_step(step((10, 1), (20, 2), round_trip_us=50))
    for number, field in enumerate(dataclasses.fields(Counters)):
        if field.name.startswith("num_") and field.name != "num_stages":
            setattr(counters, field.name, number)
    alone = counters.snapshot(1, (2, 3), (4, 5), 6, 7)
    assert merged([alone]) == alone


def test_tokens_of_prompts_count_when_their_chunk_is_back() -> None:
    counters = Counters(1)
    chunk = MicroBatch(1, (2, 3, 4))
    for batch, error in [
        (chunk, None),
        (chunk, "out of memory"),
        (MicroBatch(1, (2, 3), is_examined=True), None),
        (MicroBatch(1, (2,), (Sample(SamplingParams(), 0),)), None),
        (None, None),
    ]:
        counters.count_step(StepResult(0, batch, (), error, (VisitTiming(1, 1),), 1))
    assert snapshot(counters).num_prefill_tokens == 3
