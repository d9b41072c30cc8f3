"""From what engines noted to a trace."""

import pytest
from hypothesis import given

from tbcluster.tracing.building import Head, request_trace, summary
from tbcluster.tracing.records import EngineTrace, ReplicaTrace, SequenceRecord, StepRecord
from tbcluster.tracing.trace import TracedStage, decode_trace
from tbcluster.tracing.ways import WayCount
from tests.tracing.worlds import World, step, worlds

HEAD = Head("req-1", "chatcmpl-1", "/v1/chat/completions", "demo", 1_700_000_000.0, 4.0)
STAGES = [TracedStage(0, 0, "mac-1", 0, 3), TracedStage(1, 0, "mac-2", 4, 7)]


def sequence(**fields: object) -> SequenceRecord:
    """A sequence that ran from 5 to 6 s."""
    usual: dict[str, object] = {
        "request_id": "a",
        "num_prompt_tokens": 7,
        "num_cached_tokens": 0,
        "num_generated_tokens": 2,
        "num_steps": 1,
        "outcome": "stop",
        "submitted_at": 4.5,
        "started_at": (5.0,),
        "first_token_at": 5.5,
        "ended_at": 6.0,
    }
    return SequenceRecord(**{**usual, **fields})  # type: ignore[arg-type]


def known(record: SequenceRecord, *steps: StepRecord, replica: int = 0) -> ReplicaTrace:
    """What one replica knows."""
    return ReplicaTrace(replica, EngineTrace(record, steps, steps))


STEP = step(9, 5_000_000, (0, 70_000_000), (100, 300, 60), (1000, 2000))


def test_times_count_from_when_the_request_came() -> None:
    trace = request_trace(HEAD, [[known(sequence(), STEP)]], STAGES)
    (one,) = trace.sequences
    assert (one.submitted_us, one.started_us) == (500_000, (1_000_000,))
    assert (one.first_token_us, one.ended_us) == (1_500_000, 2_000_000)
    (told,) = one.steps
    assert (told.sent_us, told.back_us, told.kind) == (1_000_000, 1_003_460, "decode")
    assert told.wire_us + told.queue_us + told.compute_us == told.back_us - told.sent_us
    assert [visit.compute_us for visit in told.visits] == [1000, 2000]
    assert trace.stages[0].clock_error_us == 0
    # Nobody knows how the wire's 460 us were shared by the ways there and back.
    assert 0 < trace.stages[1].clock_error_us <= 230


def test_it_is_the_same_after_a_trip_as_json() -> None:
    import msgspec

    trace = request_trace(HEAD, [[known(sequence(), STEP)]], STAGES)
    assert decode_trace(msgspec.json.encode(trace)) == trace


def test_several_choices_end_with_the_last_and_count_together() -> None:
    told = summary(
        HEAD,
        [
            [known(sequence())],
            [known(sequence(outcome="length", ended_at=7.0, first_token_at=5.2))],
        ],
    )
    assert (told.outcome, told.num_generated_tokens) == ("length", 4)
    assert (told.first_token_us, told.ended_us) == (1_200_000, 3_000_000)
    still = summary(
        HEAD, [[known(sequence())], [known(sequence(outcome="running", ended_at=None))]]
    )
    assert (still.outcome, still.ended_us) == ("running", None)


def test_a_sequence_that_moved_goes_on_elsewhere() -> None:
    here = sequence(outcome="moved", ended_at=5.2, first_token_at=None, num_steps=1)
    there = sequence(submitted_at=5.3, started_at=(5.4,), num_steps=2)
    later = step(3, 5_500_000, (0,), (100, 60), (1000,))
    stages = [*STAGES, TracedStage(0, 1, "mac-3", 0, 7)]
    trace = request_trace(HEAD, [[known(there, later, replica=1), known(here, STEP)]], stages)
    (one,) = trace.sequences
    assert (one.outcome, one.ended_us) == ("stop", 2_000_000)
    assert one.started_us == (1_000_000, 1_400_000)
    assert [[trace.stages[v.stage].node for v in s.visits] for s in one.steps] == [
        ["mac-1", "mac-2"],
        ["mac-3"],
    ]
    assert one.num_lost_steps == 0
    only_left = request_trace(HEAD, [[known(here, STEP)]], stages).sequences[0]
    assert (only_left.outcome, only_left.ended_us) == ("running", None)


def test_steps_that_were_forgotten_are_counted() -> None:
    trace = request_trace(HEAD, [[known(sequence(num_steps=40), STEP)]], STAGES)
    assert trace.sequences[0].num_lost_steps == 39


def test_steps_of_a_plan_with_more_stages_are_told_too() -> None:
    trace = request_trace(HEAD, [[known(sequence(), STEP)]], STAGES[:1])
    assert [stage.node for stage in trace.stages] == ["mac-1", ""]


@given(worlds())
def test_ways_add_up_to_what_the_wires_took(world: World) -> None:
    """On one machine; elsewhere the sum over a trip is right, and not how it is shared."""
    count = WayCount(len(world.clocks_us))
    count.add(world.records)
    told_us = sum(count.wire_us)
    wires_us = sum(sum(wires[:-1]) for wires in world.wires_us)
    if not any(world.clocks_us):
        assert told_us == pytest.approx(wires_us, abs=10)
    back_us = sum(wires[-1] for wires in world.wires_us)
    assert 0 <= told_us <= wires_us + back_us + 10


def test_steps_of_other_stages_do_not_count() -> None:
    count = WayCount(3)
    count.add([STEP])
    assert count.wire_us == [0, 0, 0]
