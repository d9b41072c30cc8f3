"""What of a trace is shown, and to what it adds up."""

import pytest
from hypothesis import given

from tbcluster.tracing.trace import SequenceTrace, StepTrace
from tbcluster.tracing.waterfall import (
    NUM_FIRST,
    NUM_PROMPTS,
    NUM_SLOWEST,
    away_us,
    pieces,
    shares,
    waterfall,
    where_time_went,
)
from tests.tracing.traces import a_trace, step_lists


@given(step_lists())
def test_pieces_fill_a_step_and_follow_one_another(steps: tuple[StepTrace, ...]) -> None:
    for step in steps:
        found = pieces(step)
        assert sum(piece.end_us - piece.start_us for piece in found) == away_us(step)
        at = 0
        for piece in found:
            assert piece.start_us == at
            at = piece.end_us


@given(step_lists())
def test_what_is_shown_is_bounded_and_in_order(steps: tuple[StepTrace, ...]) -> None:
    sequence = SequenceTrace(0, 1, 0, 1, "stop", 0, steps=steps)
    drawn = waterfall(sequence)
    assert len(drawn.rows) + drawn.num_hidden == len(steps)
    assert len(drawn.rows) <= NUM_PROMPTS + NUM_FIRST + 2 * NUM_SLOWEST
    times = [row.step.sent_us for row in drawn.rows]
    assert times == sorted(times)
    if steps:
        assert max(steps, key=away_us) in [row.step for row in drawn.rows]
        assert drawn.longest_us == max(map(away_us, steps))


def test_the_slowest_is_shown_among_many() -> None:
    drawn = waterfall(a_trace(num_decodes=500).sequences[0])
    assert max(away_us(row.step) for row in drawn.rows) > 40_000
    assert drawn.num_hidden > 480
    prompt, decode = drawn.summaries
    assert (prompt.kind, prompt.count) == ("prompt", 2)
    assert (decode.kind, decode.count) == ("decode", 500)
    assert decode.p50_ms == pytest.approx(3.55)
    assert decode.slowest_ms == pytest.approx(43.55)
    assert decode.p50_ms <= decode.p90_ms <= decode.p99_ms <= decode.slowest_ms


def test_stages_share_a_step_among_them() -> None:
    steps = a_trace(num_decodes=10).sequences[0].steps[2:]
    first, second, third = shares(steps)
    assert (first.compute_ms, first.wire_ms) == (1.0, 0.1)
    assert second.compute_ms == 1.5
    # The way back is nobody's.
    assert first.share + second.share + third.share == pytest.approx(1 - 50 / 3550)


def test_a_sentence_says_where_time_went() -> None:
    trace = a_trace(num_decodes=10)
    said = where_time_went(trace, trace.sequences[0])
    assert "computing" in said
    assert "Stage 1 on mac-2 computes longest" in said
    nothing = a_trace(num_decodes=10, steps=())
    assert where_time_went(nothing, nothing.sequences[0]) == ""
