"""What an engine notes of its steps, and what it does not."""

import pytest

from tbcluster.core import MicroBatch, Pooling, StepResult, VisitTiming
from tbcluster.engine import step_log
from tbcluster.engine.step_log import StepLog
from tbcluster.errors import StarvedError
from tbcluster.tracing.records import EngineTrace
from tests.doubles.epochs import PROMPTS, Bench


def trace_of(bench: Bench, number: int) -> EngineTrace:
    """Of the request that was asked as the nth."""
    found = bench.engine.trace(f"{number}")
    assert found is not None
    return found


def test_a_request_is_followed_to_its_end() -> None:
    bench = Bench()
    bench.submit(PROMPTS[2], max_tokens=5)
    bench.finish()
    sequence, steps, others = trace_of(bench, 0)
    assert (sequence.num_prompt_tokens, sequence.num_generated_tokens) == (len(PROMPTS[2]), 5)
    assert sequence.outcome == "length"
    assert len(sequence.started_at) == 1
    assert sequence.first_token_at is not None
    assert sequence.ended_at is not None
    assert sequence.submitted_at <= sequence.started_at[0] <= sequence.first_token_at
    assert sequence.first_token_at <= sequence.ended_at
    assert len(steps) == sequence.num_steps
    prompts = [step.num_tokens for step in steps if step.is_prompt]
    # The last of the prompt's tokens is a decode step.
    assert sum(prompts) == len(PROMPTS[2]) - 1
    assert len(steps) - len(prompts) == 5
    assert set(steps) <= set(others)
    assert all(step.sent_at <= step.back_at for step in steps)


def test_those_that_run_are_told_as_they_stand() -> None:
    bench = Bench()
    bench.submit(PROMPTS[0], max_tokens=50)
    assert bench.engine.trace("0") is None
    bench.turns(8)
    running = trace_of(bench, 0).sequence
    assert (running.outcome, running.ended_at) == ("running", None)
    assert 0 < running.num_generated_tokens < 50


def test_one_that_is_cancelled_says_so() -> None:
    bench = Bench()
    bench.submit(PROMPTS[0], max_tokens=50)
    bench.turns(5)
    bench.engine.cancel("0")
    bench.turns(1)
    assert trace_of(bench, 0).sequence.outcome == "cancelled"


def test_one_that_was_cancelled_on_its_way_from_another_engine_says_so() -> None:
    first, second = Bench(), Bench()
    first.submit(PROMPTS[0], max_tokens=50)
    first.turns(1)
    second.engine.cancel("0")
    first.engine.pause()
    first.engine.surrender(second.engine.adopt)
    first.turns(1)
    second.turns(1)
    assert trace_of(first, 0).sequence.outcome == "moved"
    assert trace_of(second, 0).sequence.outcome == "cancelled"


def test_one_that_cannot_be_finished_is_an_error() -> None:
    bench = Bench()
    bench.submit(PROMPTS[0], max_tokens=50)
    bench.turns(5)
    bench.engine.starve(StarvedError("no stages are left"))
    bench.turns(1)
    assert trace_of(bench, 0).sequence.outcome == "error"


def test_starting_over_is_noted() -> None:
    bench = Bench()
    bench.submit(PROMPTS[1], max_tokens=20)
    bench.turns(6)
    bench.engine.pause()
    bench.turns(1)
    bench.begin_epoch()
    bench.engine.open()
    bench.finish()
    sequence = trace_of(bench, 0).sequence
    assert len(sequence.started_at) == 2
    assert sequence.outcome == "length"


def test_no_tokens_are_kept_of_what_has_ended() -> None:
    bench = Bench()
    bench.submit(PROMPTS[1], max_tokens=3)
    bench.finish()
    log = bench.engine._loop.log
    assert all(entry.sequence is None for entry in log._entries.values())


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_log, "MAX_SEQUENCES", 3)
    bench = Bench()
    bench.submit(PROMPTS[0], max_tokens=400)
    for _ in range(4):
        told = bench.submit(PROMPTS[1], max_tokens=2)
        while len(told) < 2:
            bench.turns(1)
    # The first still runs.
    known = [number for number in range(5) if bench.engine.trace(f"{number}") is not None]
    assert known == [0, 3, 4]


def test_nothing_is_noted_when_it_is_off() -> None:
    bench = Bench()
    bench.engine._loop.log.is_on = False
    bench.submit(PROMPTS[1], max_tokens=3)
    bench.finish()
    assert bench.engine.trace("0") is None


def test_steps_are_counted_once_however_often_one_looks() -> None:
    """Each was 300 us on its way to the first stage and 200 us to the second."""
    log = StepLog(lambda: 0.0)

    def note(step_id: int) -> None:
        sent_us = 5_000_000 + step_id * 10_000
        visits = (
            VisitTiming(1000, 1, sent_us + 300, sent_us + 1300),
            VisitTiming(500, 1, sent_us + 1500, sent_us + 2000),
        )
        back_at = (sent_us + 2100) / 1e6
        batch = MicroBatch(1, (2,))
        log.step(StepResult(step_id, batch, (), None, visits, 2100, back_at=back_at), (), 2)

    note(0)
    assert log.wire_us(2) == (300, 200)
    assert log.wire_us(2) == (300, 200)
    note(1)
    note(2)
    assert log.wire_us(2) == (900, 600)
    log.reset()
    assert log.wire_us(2) == (0, 0)
    note(3)
    assert log.wire_us(2) == (300, 200)


def test_embeddings_are_not_noted() -> None:
    bench = Bench()
    bench.submit(PROMPTS[1], max_tokens=1, pooling=Pooling.MEAN)
    bench.finish()
    assert bench.engine.trace("0") is None
