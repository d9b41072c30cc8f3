"""The loop of a worker over in-memory channels: what it begins, finishes, drops and sends where."""

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from tbcluster.core import MicroBatch, Sample, SampledToken, SamplingParams, VisitTiming
from tbcluster.stage.beats import Work
from tbcluster.stage.executor import BegunStep, StageExecutor
from tbcluster.stage.orders import Outbound
from tbcluster.stage.steps import MAX_LOGGED_DROPS, StepReader, run_steps
from tbcluster.transport.memory import MemoryChannel
from tbcluster.wire.messages import (
    Result,
    Step,
    decode_result,
    decode_step,
    encode_result,
    encode_step,
)
from tbcluster.wire.operations import DropCache, JoinLane, NewCache
from tbcluster.wire.tensors import Buffer
from tests.stage.test_executor import (
    NUM_TOKENS,
    PROMPTS,
    new_executors,
    unsharded_tokens,
)

DEADLINE_S = 60.0
GARBAGE: list[list[Buffer]] = [
    [],
    [b""],
    [b"garbage"],
    encode_result(Result(1, 1)),
    [*encode_step(Step(1, 1)), b"more"],
]


class _EndOfScriptError(Exception):
    """Leaves `run_steps`, which has no other end."""


class ScriptedReceiver:
    """Hands out messages; None in the script stands for a moment in which none is there."""

    def __init__(self, script: Sequence[list[Buffer] | None]) -> None:
        self._script = deque(script)
        self.num_waits = 0

    def receive(self, timeout_s: float | None) -> list[Buffer] | None:
        if timeout_s is None:
            self.num_waits += 1
            while self._script and self._script[0] is None:
                self._script.popleft()
            if not self._script:
                raise _EndOfScriptError
        return self._script.popleft() if self._script else None

    def wake(self) -> None:
        raise AssertionError("nobody wakes a worker")

    def close(self) -> None:
        pass


class ExecutorDouble:
    """Writes down what the loop does; steps of epoch 0 are past."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.begun_alone: list[int] = []
        self.num_waits = 0

    def waited(self, seconds: float) -> None:
        assert seconds >= 0
        self.num_waits += 1

    def begin(self, step: Step, *, is_alone: bool) -> BegunStep | None:
        self.log.append(("begin", step.step_id))
        if is_alone:
            self.begun_alone.append(step.step_id)
        return BegunStep(step, None, [], None) if step.epoch else None

    def start(self, begun: BegunStep) -> None:
        self.log.append(("start", begun.step.step_id))

    def finish(self, begun: BegunStep) -> Step | Result:
        step = begun.step
        self.log.append(("finish", step.step_id))
        return step if step.step_id % 2 else Result(step.epoch, step.step_id)


class Bench:
    """`run_steps` with an executor that only takes notes."""

    def __init__(self) -> None:
        self.executor = ExecutorDouble()
        self.next_stage, self.coordinator = MemoryChannel(), MemoryChannel()

    def run(self, *script: Step | list[Buffer] | None) -> ScriptedReceiver:
        messages = [encode_step(item) if isinstance(item, Step) else item for item in script]
        receiver = ScriptedReceiver(messages)
        outbound = Outbound(self.next_stage, self.coordinator)
        with contextlib.suppress(_EndOfScriptError):
            run_steps(cast(StageExecutor, self.executor), receiver, outbound, 3, Work())
        return receiver

    def begins(self) -> list[int]:
        return [step_id for what, step_id in self.executor.log if what == "begin"]

    def finishes(self) -> list[int]:
        return [step_id for what, step_id in self.executor.log if what == "finish"]


def steps(number: int) -> list[Step]:
    return [Step(1, step_id) for step_id in range(number)]


def test_a_step_that_is_there_is_begun_before_the_last_is_finished_and_started_after() -> None:
    bench = Bench()
    bench.run(*steps(3))
    assert bench.executor.log == [
        ("begin", 0),
        ("start", 0),
        ("begin", 1),
        ("finish", 0),
        ("start", 1),
        ("begin", 2),
        ("finish", 1),
        ("start", 2),
        ("finish", 2),
    ]
    assert bench.executor.begun_alone == [0]


def test_a_step_is_finished_when_nothing_follows() -> None:
    """Its result may be what the next one waits for."""
    bench = Bench()
    first, second = steps(2)
    receiver = bench.run(first, None, None, second, None)
    assert bench.begins() == bench.finishes() == [0, 1]
    assert [step_id for _, step_id in bench.executor.log] == [0, 0, 0, 1, 1, 1]
    assert bench.executor.begun_alone == [0, 1]
    # The first was there at once; before the second, and at the end, there was nothing to do.
    assert receiver.num_waits == 2
    # Told of each that came to a stage with nothing in hand: not of the end.
    assert bench.executor.num_waits == 2


def test_results_go_back_and_steps_go_on() -> None:
    bench = Bench()
    bench.run(*steps(4))
    went_on = [decode_step(bench.next_stage.receive(0) or []).step_id for _ in range(2)]
    came_back = [decode_result(bench.coordinator.receive(0) or []).step_id for _ in range(2)]
    assert (went_on, came_back) == ([1, 3], [0, 2])
    assert bench.next_stage.receive(0) is None
    assert bench.coordinator.receive(0) is None


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("place", range(4))
def test_garbage_is_dropped_and_logged(
    place: int, garbage: list[Buffer], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    script: list[Step | list[Buffer] | None] = [*steps(3)]
    script.insert(place, garbage)
    bench.run(*script)
    assert bench.begins() == bench.finishes() == [0, 1, 2]
    (record,) = caplog.records
    assert record.getMessage().startswith("stage 3 dropped message 1: ")


def test_garbage_without_end_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    caplog.set_level(logging.DEBUG)
    bench.run(*[[b"garbage"]] * (3 * MAX_LOGGED_DROPS), *steps(1))
    assert bench.finishes() == [0]
    assert len(caplog.records) == MAX_LOGGED_DROPS


def test_a_step_of_a_past_epoch_holds_nothing_up() -> None:
    bench = Bench()
    bench.run(Step(1, 0), Step(0, 7), Step(1, 1))
    assert bench.begins() == [0, 7, 1]
    assert bench.finishes() == [0, 1]
    assert bench.executor.begun_alone == [0, 1]


def test_waiting_in_vain_counts_too() -> None:
    class Woken(MemoryChannel):
        def receive(self, timeout_s: float | None) -> list[Buffer] | None:
            return None

    executor = ExecutorDouble()
    reader = StepReader(Woken(), cast(StageExecutor, executor), 0)
    assert reader.next(waits=True) is None
    assert executor.num_waits == 1
    assert reader.next(waits=False) is None
    assert executor.num_waits == 1


# Two workers in a thread each


class EndingChannel(MemoryChannel):
    """A channel that `end` makes raise in whoever receives."""

    END = b"the end"

    def receive(self, timeout_s: float | None) -> list[Buffer] | None:
        frames = super().receive(timeout_s)
        if frames == [self.END]:
            raise _EndOfScriptError
        return frames

    def end(self) -> None:
        self.send([self.END])


class TwoWorkers:
    """Both halves of a model, each in its own thread as in its own process."""

    def __init__(self, name: str) -> None:
        self._inbound = [EndingChannel(), EndingChannel()]
        self._results = MemoryChannel()
        self._num_sent = 0
        self._threads = [
            threading.Thread(target=self._worker(index, executor), daemon=True)
            for index, executor in enumerate(new_executors(name, (2,)))
        ]
        for thread in self._threads:
            thread.start()

    def send(self, micro_batch: MicroBatch | None, *operations: Any) -> None:
        frames = encode_step(Step(1, self._num_sent, operations, micro_batch))
        self._num_sent += 1
        self._inbound[0].send(frames)

    def send_garbage(self, frames: list[Buffer]) -> None:
        for channel in self._inbound:
            channel.send(frames)

    def result(self) -> Result:
        frames = self._results.receive(DEADLINE_S)
        assert frames is not None
        return decode_result(frames)

    def end(self) -> None:
        for channel in self._inbound:
            channel.end()
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()

    def _worker(self, index: int, executor: StageExecutor) -> Callable[[], None]:
        outbound = Outbound(self._inbound[1 - index], self._results)

        def run() -> None:
            with contextlib.suppress(_EndOfScriptError):
                run_steps(executor, self._inbound[index], outbound, index, Work())

        return run


def samples_after(*rows: list[int]) -> tuple[Sample, ...]:
    return tuple(Sample(SamplingParams(), len(row)) for row in rows)


@pytest.mark.parametrize("name", ["llama", "nanbeige"])
def test_two_workers_give_the_unsharded_answers_in_spite_of_garbage(name: str) -> None:
    workers = TwoWorkers(name)
    prompts = PROMPTS[:2]
    rows = [list(prompt) for prompt in prompts]
    for index, prompt in enumerate(prompts):
        workers.send(MicroBatch(index, prompt[:-1]), NewCache(index))
    workers.send_garbage([b"garbage"])
    operations = (JoinLane(5, (0, 1)),)
    for _ in prompts:
        assert workers.result().error is None
    for _ in range(NUM_TOKENS):
        newest = tuple(row[-1] for row in rows)
        workers.send(MicroBatch(5, newest, samples_after(*rows)), *operations)
        workers.send_garbage(GARBAGE[3])
        operations = ()
        result = workers.result()
        assert result.error is None
        assert all(isinstance(sampled, SampledToken) for sampled in result.sampled)
        assert all(isinstance(timing, VisitTiming) for timing in result.timings)
        for row, sampled in zip(rows, result.sampled, strict=True):
            row.append(sampled.token)
    workers.send(None, DropCache(5))
    assert workers.result().error is None
    workers.end()
    for row, prompt in zip(rows, prompts, strict=True):
        assert row[len(prompt) :] == unsharded_tokens(name, prompt)
