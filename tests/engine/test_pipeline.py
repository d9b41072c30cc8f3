"""The coordinator's end of the pipeline, over an in-memory channel."""

import threading
from typing import Any

import pytest

from tbcluster.core import MicroBatch, SampledToken, VisitTiming
from tbcluster.engine.pipeline import QUIET_S, Pipeline
from tbcluster.transport.memory import MemoryChannel
from tbcluster.wire.messages import Result, Step, decode_step, encode_result, encode_step
from tbcluster.wire.operations import DropCache, NewCache

DEADLINE_S = 30.0
BATCH = MicroBatch(0, (1, 2))


class Bench:
    """A pipeline and both its ends, on a clock that is set by hand."""

    def __init__(self) -> None:
        self.to_stages = MemoryChannel()
        self.from_stages = MemoryChannel()
        self.now = 10.0
        self.pipeline = Pipeline(self.to_stages, self.from_stages, epoch=3, clock=lambda: self.now)

    def sent(self) -> list[Step]:
        steps = []
        while (frames := self.to_stages.receive(0)) is not None:
            steps.append(decode_step(frames))
        return steps

    def answer(self, result: Result) -> None:
        self.from_stages.send(encode_result(result))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_steps_are_numbered_in_order(bench: Bench) -> None:
    ids = [bench.pipeline.submit(BATCH) for _ in range(3)]
    steps = bench.sent()
    assert [step.step_id for step in steps] == ids == [ids[0], ids[0] + 1, ids[0] + 2]
    assert [step.epoch for step in steps] == [3, 3, 3]
    assert all(step.micro_batch == BATCH for step in steps)


def test_operations_ride_along_with_their_step_alone_and_in_order(bench: Bench) -> None:
    operations = (NewCache(1), DropCache(0), NewCache(2))
    bench.pipeline.submit(BATCH, operations)
    bench.pipeline.submit(BATCH)
    assert [step.operations for step in bench.sent()] == [operations, ()]


def test_operations_alone_are_a_step_of_their_own(bench: Bench) -> None:
    step_id = bench.pipeline.submit(None, (DropCache(1),))
    (step,) = bench.sent()
    assert step.step_id == step_id
    assert step.operations == (DropCache(1),)
    assert step.micro_batch is None
    bench.answer(Result(3, step.step_id))
    result = bench.pipeline.collect(0)
    assert result is not None
    assert (result.step_id, result.micro_batch, result.sampled) == (step_id, None, ())


def test_a_result_is_joined_with_its_micro_batch(bench: Bench) -> None:
    first = bench.pipeline.submit(MicroBatch(0, (1,)))
    bench.now = 10.5
    second = bench.pipeline.submit(MicroBatch(5, (2,)))
    bench.now = 11.0
    tokens = (SampledToken(42), SampledToken(43))
    timings = (VisitTiming(7, 0), VisitTiming(8, 900))
    bench.answer(Result(3, second, tokens, None, timings))
    bench.answer(Result(3, first, (), "broken"))
    result = bench.pipeline.collect(0)
    assert result is not None
    assert (result.step_id, result.micro_batch) == (second, MicroBatch(5, (2,)))
    assert (result.sampled, result.error) == (tokens, None)
    assert (result.timings, result.round_trip_us) == (timings, 500_000)
    result = bench.pipeline.collect(0)
    assert result is not None
    assert (result.micro_batch, result.error) == (MicroBatch(0, (1,)), "broken")
    assert result.round_trip_us == 1_000_000
    assert bench.pipeline.collect(0) is None
    assert bench.pipeline.num_dropped_messages == 0


def test_what_is_no_result_of_a_step_in_flight_is_dropped_and_counted(bench: Bench) -> None:
    step_id = bench.pipeline.submit(BATCH)
    bench.answer(Result(2, step_id))
    bench.answer(Result(4, step_id))
    bench.answer(Result(3, step_id + 1))
    bench.answer(Result(3, -1))
    bench.from_stages.send([b"garbage"])
    bench.from_stages.send([])
    bench.from_stages.send([*encode_result(Result(3, step_id)), b"more"])
    bench.from_stages.send(encode_step(Step(3, step_id)))
    for count in range(1, 9):
        assert bench.pipeline.collect(0) is None
        assert bench.pipeline.num_dropped_messages == count
    # The step itself is still in flight, and is answered once.
    bench.answer(Result(3, step_id))
    bench.answer(Result(3, step_id))
    assert bench.pipeline.collect(0) is not None
    assert bench.pipeline.collect(0) is None
    assert bench.pipeline.num_dropped_messages == 9


def test_a_new_epoch_forgets_what_was_before(bench: Bench) -> None:
    old = bench.pipeline.submit(BATCH, (NewCache(0),))
    bench.pipeline.begin_epoch(4)
    bench.answer(Result(3, old))
    bench.answer(Result(4, old))
    assert bench.pipeline.collect(0) is None
    assert bench.pipeline.collect(0) is None
    assert bench.pipeline.num_dropped_messages == 2
    bench.sent()
    new = bench.pipeline.submit(BATCH)
    assert new > old
    (step,) = bench.sent()
    assert (step.epoch, step.operations) == (4, ())
    bench.answer(Result(4, new))
    assert bench.pipeline.collect(0) is not None


def test_forget_keeps_the_epoch(bench: Bench) -> None:
    old = bench.pipeline.submit(BATCH, (NewCache(1),))
    bench.pipeline.forget()
    bench.answer(Result(3, old))
    assert bench.pipeline.collect(0) is None
    assert bench.pipeline.num_dropped_messages == 1
    bench.sent()
    bench.pipeline.submit(BATCH)
    assert [(step.epoch, step.operations) for step in bench.sent()] == [(3, ())]


def test_a_wake_ends_the_wait(bench: Bench) -> None:
    results: list[object] = []
    waiting = threading.Thread(target=lambda: results.append(bench.pipeline.collect(None)))
    waiting.start()
    bench.pipeline.wake()
    waiting.join(DEADLINE_S)
    assert results == [None]


class OrderedBench(Bench):
    """A pipeline whose results have to come in order."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lost: list[int] = []
        self.pipeline = Pipeline(
            self.to_stages,
            self.from_stages,
            epoch=3,
            clock=lambda: self.now,
            on_gap=self.lost.append,
            **options,
        )


def test_a_step_that_never_came_spoils_what_comes_after_it() -> None:
    bench = OrderedBench()
    first, second, third = (bench.pipeline.submit(BATCH) for _ in range(3))
    bench.answer(Result(3, first))
    assert bench.pipeline.collect(0) is not None
    bench.answer(Result(3, third))
    assert bench.pipeline.collect(0) is None
    assert bench.lost == [second]
    bench.answer(Result(3, bench.pipeline.submit(BATCH)))
    assert bench.pipeline.collect(0) is None
    assert bench.lost == [second], "once in each epoch"


def test_a_new_epoch_counts_again_after_a_lost_step() -> None:
    bench = OrderedBench()
    bench.pipeline.submit(BATCH)
    bench.answer(Result(3, bench.pipeline.submit(BATCH)))
    assert bench.pipeline.collect(0) is None
    bench.pipeline.begin_epoch(4)
    again = bench.pipeline.submit(BATCH)
    bench.answer(Result(4, again))
    result = bench.pipeline.collect(0)
    assert result is not None
    assert result.step_id == again
    assert len(bench.lost) == 1


def test_what_is_quiet_for_long_is_asked_for() -> None:
    bench = OrderedBench()
    lost = bench.pipeline.submit(BATCH)
    bench.sent()
    bench.now += QUIET_S * 0.9
    assert bench.pipeline.collect(0) is None
    assert bench.sent() == []
    bench.now += QUIET_S * 0.2
    assert bench.pipeline.collect(0) is None
    (empty,) = bench.sent()
    assert empty.micro_batch is None
    assert empty.operations == ()
    bench.answer(Result(3, empty.step_id))
    assert bench.pipeline.collect(0) is None
    assert bench.lost == [lost]


def test_a_slow_step_is_not_taken_for_lost() -> None:
    bench = OrderedBench()
    slow = bench.pipeline.submit(BATCH)
    for _ in range(3):
        bench.now += QUIET_S * 1.1
        assert bench.pipeline.collect(0) is None
    for step in bench.sent():
        bench.answer(Result(3, step.step_id))
    results = [bench.pipeline.collect(0) for _ in range(4)]
    assert [result and result.step_id for result in results] == [slow, slow + 1, slow + 2, slow + 3]
    assert bench.lost == []


def test_nobody_is_asked_where_nothing_is_on_its_way(bench: Bench) -> None:
    ordered = OrderedBench()
    ordered.now += QUIET_S * 5
    assert ordered.pipeline.collect(0) is None
    assert ordered.sent() == []
    bench.pipeline.submit(BATCH)
    bench.sent()
    bench.now += QUIET_S * 5
    assert bench.pipeline.collect(0) is None
    assert bench.sent() == [], "nobody would do anything about it"


# Steps that take too long

LIMIT_S = 50.0


@pytest.mark.parametrize("is_looped", [False, True])
def test_the_oldest_step_is_lost_when_it_is_overdue(is_looped: bool) -> None:
    bench = OrderedBench(deadline_s=LIMIT_S, is_looped=is_looped)
    bench.now += LIMIT_S * 2
    assert bench.pipeline.collect(0) is None
    assert bench.lost == [], "nothing was on its way"
    first = bench.pipeline.submit(BATCH)
    bench.now += 10
    bench.pipeline.submit(BATCH)
    bench.now += LIMIT_S - 11
    assert bench.pipeline.collect(0) is None
    assert bench.lost == []
    bench.now += 1
    # It looks when the time has come, without being told anything.
    assert bench.pipeline.collect(None) is None
    assert bench.lost == [first]
    bench.now += LIMIT_S * 2
    assert bench.pipeline.collect(0) is None
    assert bench.lost == [first]
    bench.answer(Result(3, first))
    assert bench.pipeline.collect(0) is None, "it may be that somebody has sent it again"
    bench.pipeline.begin_epoch(4)
    bench.pipeline.submit(BATCH)
    bench.now += LIMIT_S - 1
    assert bench.pipeline.collect(0) is None
    assert len(bench.lost) == 1


def test_what_comes_back_gives_the_others_more_time() -> None:
    bench = OrderedBench(deadline_s=LIMIT_S)
    steps = [bench.pipeline.submit(BATCH) for _ in range(5)]
    for step in steps:
        bench.now += LIMIT_S * 0.9
        bench.answer(Result(3, step))
        result = bench.pipeline.collect(0)
        assert result is not None
        assert result.step_id == step
    assert bench.lost == []


def test_garbage_gives_no_more_time() -> None:
    bench = OrderedBench(deadline_s=LIMIT_S)
    step = bench.pipeline.submit(BATCH)
    for _ in range(3):
        bench.now += LIMIT_S / 2
        bench.from_stages.send([b"garbage"])
        assert bench.pipeline.collect(0) is None
    assert bench.lost == [step]


def test_the_wait_ends_with_the_deadline() -> None:
    bench = OrderedBench(deadline_s=0.02)
    step = bench.pipeline.submit(BATCH)
    assert bench.pipeline.collect(None) is None
    assert bench.lost == [], "by a clock that stands still"
    bench.now += 0.02
    assert bench.pipeline.collect(None) is None
    assert bench.lost == [step]


# Looped models


def test_in_a_looped_model_only_what_ends_early_overtakes() -> None:
    bench = OrderedBench(is_looped=True)
    first, empty, failing, last = (
        bench.pipeline.submit(batch) for batch in (BATCH, None, BATCH, BATCH)
    )
    for early in (Result(3, empty), Result(3, failing, (), "broken")):
        bench.answer(early)
        result = bench.pipeline.collect(0)
        assert result is not None
        assert result.step_id == early.step_id
    assert bench.lost == []
    bench.answer(Result(3, last))
    assert bench.pipeline.collect(0) is None
    assert bench.lost == [first]


def test_in_a_looped_model_a_lost_empty_step_is_missed() -> None:
    bench = OrderedBench(is_looped=True)
    lost = bench.pipeline.submit(None)
    bench.answer(Result(3, bench.pipeline.submit(BATCH)))
    assert bench.pipeline.collect(0) is None
    assert bench.lost == [lost]


def test_in_a_looped_model_an_empty_step_would_say_nothing() -> None:
    bench = OrderedBench(is_looped=True)
    bench.pipeline.submit(BATCH)
    bench.sent()
    bench.now += QUIET_S * 2
    assert bench.pipeline.collect(0) is None
    assert bench.sent() == []


def test_digests_come_with_the_result(bench: Bench) -> None:
    step = bench.pipeline.submit(BATCH)
    bench.answer(Result(3, step, digests=(b"one", b"two")))
    result = bench.pipeline.collect(0)
    assert result is not None
    assert result.digests == (b"one", b"two")
