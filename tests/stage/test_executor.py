"""Real executors in one process, over tiny random models and the real wire format."""

import random
from collections import deque
from dataclasses import dataclass
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.core import (
    MicroBatch,
    Request,
    Sample,
    SampledToken,
    SamplingParams,
    TokenId,
    VisitTiming,
)
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.examination import Baseline, Examination, Suspects
from tbcluster.engine.sequence import Sequence
from tbcluster.model.rows import max_trimmable_tokens
from tbcluster.model.slicing import StageModel
from tbcluster.model.trace import ModelTrace
from tbcluster.model.tracer import trace
from tbcluster.stage import executor as executor_module
from tbcluster.stage.cache_store import CacheStore
from tbcluster.stage.executor import BegunStep, StageExecutor
from tbcluster.wire.messages import (
    Result,
    Step,
    decode_result,
    decode_step,
    encode_result,
    encode_step,
)
from tbcluster.wire.operations import (
    CacheOperation,
    CopyCache,
    DropCache,
    ForgetSaved,
    JoinLane,
    KeepRows,
    KeepSaved,
    LoadCache,
    NewCache,
    SaveCache,
    TakeRow,
)
from tests.doubles import architectures
from tests.doubles.engines import Settings, new_caches, new_scheduler

GREEDY = SamplingParams(num_logprobs=2)
NO_CACHE_0 = "stage 0: no cache 0 on this stage"
CHUNK_TOKENS = 5
NUM_TOKENS = 6
# What steps seem to have taken.
STEP_US, TOKEN_US = 1000, 10
NAME = "0123456789abcdef"
PROMPTS = [tuple(np.random.default_rng(n).integers(0, 900, n).tolist()) for n in (17, 12, 1, 30, 6)]


@cache
def parameters(name: str) -> dict[str, mx.array]:
    return architectures.random_parameters(architectures.build(name))


@cache
def traced_model(name: str) -> ModelTrace:
    return trace(architectures.build(name))


def new_executors(
    name: str,
    cuts: tuple[int, ...],
    epoch: int = 1,
    saved_folder: Path | None = None,
    weights: dict[str, mx.array] | None = None,
) -> list[StageExecutor]:
    traced = traced_model(name)
    bounds = [0, *cuts, traced.num_layers]
    executors = []
    for index, (start, end) in enumerate(pairwise(bounds)):
        model = StageModel(
            architectures.load(architectures.build(name), weights or parameters(name)),
            traced,
            start,
            end,
        )
        folder = saved_folder / str(index) if saved_folder is not None else None
        caches = CacheStore(model.make_cache, folder)
        executors.append(StageExecutor(model, caches, index, len(bounds) - 1, epoch))
    return executors


def prompt_chunks(prompt: tuple[TokenId, ...]) -> list[tuple[TokenId, ...]]:
    end = len(prompt) - 1
    return [prompt[i : min(i + CHUNK_TOKENS, end)] for i in range(0, end, CHUNK_TOKENS)]


@cache
def unsharded_tokens(name: str, prompt: tuple[TokenId, ...]) -> list[TokenId]:
    model = architectures.load(architectures.build(name), parameters(name))
    kv_cache = make_prompt_cache(model)
    for chunk in prompt_chunks(prompt):
        mx.eval(model(mx.array([chunk]), cache=kv_cache))
    tokens = [prompt[-1]]
    for _ in range(NUM_TOKENS):
        logits = model(mx.array([tokens[-1:]]), cache=kv_cache)
        best: Any = mx.argmax(logits[0, -1]).item()
        tokens.append(best)
    return tokens[1:]


class Chain:
    """Executors joined by queues of encoded messages; any of them may be the next to work.

    Args:
        overlaps: Whether a step that is there is begun before the one before it is finished, as
            workers do.
        epoch: Executors that have worked before need a later one.
    """

    def __init__(
        self,
        executors: list[StageExecutor],
        seed: int = 0,
        *,
        overlaps: bool = False,
        epoch: int = 1,
    ) -> None:
        self.executors = executors
        self.epoch = epoch
        self.inboxes: list[deque[Step]] = [deque() for _ in executors]
        self.results: deque[Result] = deque()
        self.submitted: list[MicroBatch | None] = []
        self._begun: list[BegunStep | None] = [None] * len(executors)
        self._overlaps = overlaps
        self._random = random.Random(seed)

    def submit(
        self, micro_batch: MicroBatch | None, *operations: CacheOperation, epoch: int | None = None
    ) -> None:
        step = Step(epoch or self.epoch, len(self.submitted), operations, micro_batch)
        self.submitted.append(micro_batch)
        self.inboxes[0].append(over_the_wire(step))

    def work_once(self) -> bool:
        busy = [i for i, inbox in enumerate(self.inboxes) if inbox or self._begun[i]]
        if not busy:
            return False
        index = self._random.choice(busy)
        executor, inbox = self.executors[index], self.inboxes[index]
        step = inbox.popleft() if inbox else None
        if not self._overlaps:
            assert step is not None
            self._send_on(index, executor.run(step))
            return True
        before = self._begun[index]
        following = executor.begin(step, is_alone=before is None) if step is not None else None
        self._begun[index] = following
        if before is not None:
            self._send_on(index, executor.finish(before))
        if following is not None:
            executor.start(following)
        return True

    def result(self) -> Result:
        """The next result; there must be one to come."""
        while not self.results:
            assert self.work_once(), "nothing is under way"
        return self.results.popleft()

    def answer(
        self, micro_batch: MicroBatch | None, *operations: CacheOperation, epoch: int | None = None
    ) -> Result:
        self.submit(micro_batch, *operations, epoch=epoch)
        return self.result()

    def run_at(self, index: int, *operations: CacheOperation) -> None:
        """One stage alone sees these."""
        self.executors[index].run(Step(self.epoch, len(self.submitted), operations))
        self.submitted.append(None)

    def num_caches(self) -> list[int]:
        return [executor.num_caches for executor in self.executors]

    def _send_on(self, index: int, output: Step | Result | None) -> None:
        if isinstance(output, Result):
            self.results.append(decode_result(encode_result(output)))
        elif output is not None:
            self.inboxes[(index + 1) % len(self.inboxes)].append(over_the_wire(output))


def over_the_wire(step: Step) -> Step:
    return decode_step([bytes(frame) for frame in encode_step(step)])


class Coordinator:
    """Greedy answers to many prompts at once, in the order that the scheduler chooses."""

    def __init__(self, chain: Chain, **shape: Any) -> None:
        self.chain = chain
        limits = Settings(len(chain.executors), chunk_tokens=CHUNK_TOKENS, **shape)
        self.caches: CacheBook = new_caches(limits)
        self.scheduler = new_scheduler(limits, self.caches)
        self.most_rows = 0
        self._num_added = 0

    def answers(self, prompts: list[tuple[TokenId, ...]]) -> list[list[TokenId]]:
        sequences = [self._add(prompt) for prompt in prompts]
        while self.scheduler.num_sequences:
            while micro_batch := self.scheduler.schedule():
                self.chain.submit(micro_batch, *self.caches.take_operations())
                self.most_rows = max(self.most_rows, micro_batch.num_rows)
            self._take(self.chain.result())
        self.scheduler.settle()
        assert self.chain.answer(None, *self.caches.take_operations()).error is None
        assert self.chain.num_caches() == [len(self.caches.prefixes)] * len(self.chain.executors)
        return [sequence.tokens[len(sequence.request.prompt) :] for sequence in sequences]

    def _add(self, prompt: tuple[TokenId, ...]) -> Sequence:
        sequence = Sequence(Request("r", prompt, NUM_TOKENS), lambda _: None, self._num_added)
        self._num_added += 1
        started = self.caches.start(prompt, uses_prefixes=True)
        assert started is not None
        sequence.cache_id, sequence.num_scheduled = started.cache_id, started.num_tokens
        sequence.num_cached_tokens = started.num_tokens
        if started.prefix is not None and not started.prefix.is_proven:
            sequence.started_from = started.prefix
        self.scheduler.add(sequence)
        return sequence

    def _take(self, result: Result) -> None:
        assert result.error is None, result.error
        done = self.chain.submitted[result.step_id]
        assert done is not None
        assert len(result.sampled) == len(done.samples)
        # What was measured would have the scheduler choose otherwise on a busy machine.
        visit = VisitTiming(STEP_US + TOKEN_US * len(done.tokens), 0)
        sequences = self.scheduler.completed(done, (visit,) * len(result.timings))
        for sequence, sampled in zip(sequences, result.sampled, strict=False):
            if sequence is not None:
                sequence.tokens.append(sampled.token)
                if sequence.num_generated == NUM_TOKENS:
                    self.scheduler.remove(sequence, keeps_prefix=True)


@pytest.mark.parametrize("cuts", [(), (1, 2, 5)])
@pytest.mark.parametrize("max_rows", [1, 256])
@pytest.mark.parametrize("overlaps", [False, True])
def test_a_chain_equals_the_unsharded_model(
    cuts: tuple[int, ...], max_rows: int, overlaps: bool
) -> None:
    executors = new_executors("llama", cuts)
    prompts = PROMPTS * 2
    for seed, max_per_sequence in ((0, 1), (1, 99), (2, 99)):
        # What the run before has left behind is dropped.
        chain = Chain(executors, seed, overlaps=overlaps, epoch=seed + 1)
        coordinator = Coordinator(chain, max_rows=max_rows, max_per_sequence=max_per_sequence)
        got = coordinator.answers(prompts)
        assert got == [unsharded_tokens("llama", prompt) for prompt in prompts]
        assert (coordinator.most_rows > 1) == (max_rows > 1)


@pytest.mark.parametrize("cuts", [(), (2,), (1, 3)])
@pytest.mark.parametrize("overlaps", [False, True])
def test_a_looped_model_visits_the_stages_twice(cuts: tuple[int, ...], overlaps: bool) -> None:
    prompts = PROMPTS * 2
    for seed in range(2):
        chain = Chain(new_executors("nanbeige", cuts), seed, overlaps=overlaps)
        coordinator = Coordinator(chain, max_per_sequence=1)
        got = coordinator.answers(prompts)
        assert got == [unsharded_tokens("nanbeige", prompt) for prompt in prompts]
        assert coordinator.most_rows > 1


# As their caches allow, all can be trimmed, those that did not wrap around, or none.
@pytest.mark.parametrize("name", ["qwen3", "llama", "gemma3_text", "mamba2"])
def test_a_known_prefix_gives_the_same_answer(name: str) -> None:
    coordinator = Coordinator(
        Chain(new_executors(name, (1,)), overlaps=True),
        max_trimmable_tokens=max_trimmable_tokens(architectures.build(name)),
    )
    first = tuple(np.random.default_rng(1).integers(0, 900, 80).tolist())
    answer = unsharded_tokens(name, first)
    assert coordinator.answers([first]) == [answer]
    assert len(coordinator.caches.prefixes) > 0
    longer = (*first, *answer, 5, 6, 7)
    again = [first, longer, (*first[:40], 8, 9)]
    covered = [coordinator.caches.prefixes.would_cover(prompt) for prompt in again]
    assert covered[1] >= len(first)
    assert (covered[2] > 0) == (name == "qwen3")
    assert coordinator.answers(again) == [unsharded_tokens(name, prompt) for prompt in again]


# By hand


def decode(cache_id: int, token: TokenId = 7, position: int = 1) -> MicroBatch:
    return MicroBatch(cache_id, (token,), (Sample(GREEDY, position),))


def decode_rows(lane: int, *tokens: TokenId) -> MicroBatch:
    return MicroBatch(lane, tokens, (Sample(GREEDY, 1),) * len(tokens))


def assert_alike(got: SampledToken, expected: SampledToken) -> None:
    """Other shapes add up in another order."""
    assert got.token == expected.token
    assert got.logprob == pytest.approx(expected.logprob, abs=1e-4)
    assert [token for token, _ in got.top] == [token for token, _ in expected.top]


@pytest.fixture
def chain() -> Chain:
    return Chain(new_executors("llama", (3,)))


@pytest.fixture
def looped() -> Chain:
    return Chain(new_executors("nanbeige", (2,)))


@dataclass
class Alone:
    """A sequence that has never seen another, on a chain of its own."""

    chain: Chain
    prompt: tuple[TokenId, ...]

    def __post_init__(self) -> None:
        assert self.chain.answer(MicroBatch(0, self.prompt), NewCache(0)).error is None

    def next(self, token: TokenId) -> SampledToken:
        (sampled,) = self.chain.answer(decode(0, token)).sampled
        return sampled


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "mamba2", "nanbeige"])
@pytest.mark.parametrize("overlaps", [False, True])
def test_rows_of_a_lane_equal_the_rows_alone(name: str, overlaps: bool) -> None:
    """Sequences of different lengths join, leave and change their lane at any time."""
    shared = Chain(new_executors(name, (1,)), overlaps=overlaps)
    alone = [Alone(Chain(new_executors(name, (1,))), prompt[:-1]) for prompt in PROMPTS[:2]]
    alone.append(Alone(Chain(new_executors(name, (1,))), PROMPTS[3][:-1]))
    for index, each in enumerate(alone):
        shared.submit(MicroBatch(index, each.prompt), NewCache(index))
        shared.result()
    lane, other = 10, 11
    script: list[tuple[tuple[CacheOperation, ...], int, list[int]]] = [
        ((JoinLane(lane, (0,)),), lane, [0]),
        ((JoinLane(lane, (1,)),), lane, [0, 1]),
        ((), lane, [0, 1]),
        ((JoinLane(lane, (2,)),), lane, [0, 1, 2]),
        ((KeepRows(lane, (0, 2)),), lane, [0, 2]),
        # A row goes into a lane of its own, the other one stays.
        ((TakeRow(3, lane, 0), KeepRows(lane, (1,)), JoinLane(other, (3,))), other, [0]),
        ((), lane, [2]),
        ((TakeRow(4, lane, 0), DropCache(lane), JoinLane(other, (4,))), other, [0, 2]),
    ]
    for number, (operations, cache_id, members) in enumerate(script):
        tokens = [100 * number + member for member in members]
        result = shared.answer(decode_rows(cache_id, *tokens), *operations)
        assert result.error is None
        for member, token, sampled in zip(members, tokens, result.sampled, strict=True):
            assert_alike(sampled, alone[member].next(token))
    assert shared.num_caches() == [1, 1]


def test_a_copy_goes_its_own_way() -> None:
    chain = Chain(new_executors("qwen3", (3,)))
    prompt = PROMPTS[0]
    chain.answer(MicroBatch(0, prompt), NewCache(0))
    original = chain.answer(decode(0, 3))
    trimmed = chain.answer(decode(1, 3), CopyCache(1, 0, 1))
    assert_alike(trimmed.sampled[0], original.sampled[0])
    # What one of them computes is nothing to the other, nor to the only row of a lane.
    chain.answer(None, JoinLane(5, (1,)), TakeRow(6, 5, 0))
    chain.answer(decode(0, 4))
    chain.answer(decode(5, 5))
    again = chain.answer(decode(6, 8))
    chain.answer(None, CopyCache(7, 0, 1))
    assert_alike(chain.answer(decode(7, 8)).sampled[0], again.sampled[0])
    shorter = chain.answer(MicroBatch(2, prompt[10:]), CopyCache(2, 0, 2 + len(prompt) - 10))
    assert shorter.error is None
    assert_alike(chain.answer(decode(2, 3)).sampled[0], original.sampled[0])


def test_a_cache_is_saved_on_every_stage_and_loaded_again(tmp_path: Path) -> None:
    chain = Chain(new_executors("llama", (3,), saved_folder=tmp_path))
    chain.answer(MicroBatch(0, PROMPTS[0]), NewCache(0))
    assert chain.answer(None, SaveCache(0, NAME), DropCache(0)).error is None
    assert sorted(path.parent.name for path in tmp_path.rglob("*.safetensors")) == ["0", "1"]
    loaded = chain.answer(decode(1), LoadCache(1, NAME))
    expected = chain.answer(MicroBatch(2, PROMPTS[0]), NewCache(2))
    expected = chain.answer(decode(2))
    assert_alike(loaded.sampled[0], expected.sampled[0])
    assert chain.answer(None, ForgetSaved(NAME)).error is None
    assert list(tmp_path.rglob("*.safetensors")) == []
    missing = chain.answer(None, LoadCache(3, NAME))
    assert missing.error is not None
    assert missing.error.startswith("stage 0: no KV cache can be read")
    assert chain.answer(decode(3), LoadCache(3, NAME)).error == NO_CACHE_0.replace(
        "cache 0", "cache 3"
    )


# Begun before the last one is finished


def steps_that_follow_one_another() -> list[Step]:
    """Each needs what the one before it left in the caches."""
    batches: list[tuple[MicroBatch | None, tuple[CacheOperation, ...]]] = [
        (MicroBatch(0, PROMPTS[0][:9]), (NewCache(0), NewCache(1))),
        (MicroBatch(0, PROMPTS[0][9:]), ()),
        (MicroBatch(1, PROMPTS[1]), ()),
        (decode_rows(5, 3, 4), (CopyCache(2, 0, 0), JoinLane(5, (0, 1)))),
        (decode_rows(5, 5, 6), ()),
        (decode(99), ()),
        (decode_rows(5, 8, 9, 7), (JoinLane(5, (2,)),)),
        (None, (TakeRow(6, 5, 1), KeepRows(5, (2, 0)))),
        (decode_rows(5, 1, 2), ()),
        (decode(6, 3), (CopyCache(7, 6, 1), CopyCache(7, 77, 0))),
        (decode(6, 4), (JoinLane(7, (77,)),)),
        (decode(7, 3), ()),
        (MicroBatch(7, PROMPTS[3]), (DropCache(5),)),
        (decode(7, 3), ()),
    ]
    return [Step(1, i, operations, batch) for i, (batch, operations) in enumerate(batches)]


def without_timings(result: Result) -> tuple[Any, ...]:
    return result.step_id, result.sampled, result.error


@pytest.mark.parametrize("cuts", [(), (3,)])
def test_a_step_begun_before_the_last_is_finished_gives_the_same(cuts: tuple[int, ...]) -> None:
    one_by_one, overlapping = (
        Chain(new_executors("qwen3", cuts), overlaps=overlaps) for overlaps in (False, True)
    )
    steps = steps_that_follow_one_another()
    expected = []
    for step in steps:
        expected.append(one_by_one.answer(step.micro_batch, *step.operations))
        overlapping.submit(step.micro_batch, *step.operations)
    got = [overlapping.result() for _ in steps]
    assert [without_timings(r) for r in got] == [without_timings(r) for r in expected]
    assert [r.step_id for r in got if r.error is not None] == [5, 10]
    assert overlapping.num_caches() == one_by_one.num_caches()


def test_nothing_is_lost_when_all_are_begun_at_once() -> None:
    # Deeper than workers go.
    expected = Chain(new_executors("qwen3", ()))
    (executor,) = new_executors("qwen3", ())
    begun = [
        executor.begin(step, is_alone=step.step_id == 0) for step in steps_that_follow_one_another()
    ]
    for step, each in zip(steps_that_follow_one_another(), begun, strict=True):
        assert each is not None
        executor.start(each)
        output = executor.finish(each)
        assert isinstance(output, Result)
        answer = expected.answer(step.micro_batch, *step.operations)
        assert without_timings(output) == without_timings(answer)


# Time


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_timings_part_computing_from_waiting() -> None:
    clock = Clock()
    traced = trace(architectures.build("llama"))
    model = StageModel(
        architectures.load(architectures.build("llama"), parameters("llama")),
        traced,
        0,
        traced.num_layers,
    )
    executor = StageExecutor(model, CacheStore(model.make_cache, None), 0, 1, 1, clock)

    def timing_of(step: Step, *, begins_at: float, ends_at: float) -> VisitTiming:
        clock.now = begins_at
        begun = executor.begin(step)
        assert begun is not None
        executor.start(begun)
        clock.now = ends_at
        output = executor.finish(begun)
        assert isinstance(output, Result)
        return output.timings[-1]

    def waited(seconds: float, *, until: float) -> None:
        clock.now = until
        executor.waited(seconds)

    waited(1.5, until=101.5)
    first = timing_of(Step(1, 0, (NewCache(0),)), begins_at=101.5, ends_at=102.0)
    assert first == VisitTiming(500_000, 1_500_000, 101_500_000, 102_000_000)
    # It was begun while the one before was computing: its own time is from then on.
    second = timing_of(Step(1, 1), begins_at=101.9, ends_at=102.25)
    assert second == VisitTiming(250_000, 0, 102_000_000, 102_250_000)
    waited(3.0, until=105.25)
    waited(0.5, until=105.75)
    later = timing_of(Step(1, 2), begins_at=105.75, ends_at=105.75)
    assert later == VisitTiming(0, 3_500_000, 105_750_000, 105_750_000)
    # It came while the one before was sent on: nobody waited, and it was not there before.
    waited(0.0, until=105.8)
    sent = timing_of(Step(1, 3), begins_at=105.8, ends_at=105.9)
    assert sent == VisitTiming(150_000, 0, 105_800_000, 105_900_000)
    # Two clocks may disagree by a little.
    waited(1.0, until=106)
    assert timing_of(Step(1, 4), begins_at=106, ends_at=106).compute_us == 0


def test_one_timing_per_visit(chain: Chain, looped: Chain) -> None:
    assert len(chain.answer(decode(0), NewCache(0)).timings) == 2
    assert len(looped.answer(decode(0), NewCache(0)).timings) == 4


# Operations, epochs and errors


def test_operations_alone(chain: Chain, looped: Chain) -> None:
    for either in (chain, looped):
        result = either.answer(None, NewCache(1), NewCache(2))
        assert result.sampled == ()
        assert result.error is None
        assert either.num_caches() == [2, 2]
        # Dropping what is not there is nothing: its step may have been lost with a stage.
        either.answer(None, DropCache(1), DropCache(9))
        assert either.num_caches() == [1, 1]


def test_operations_are_applied_once_in_a_looped_model(looped: Chain) -> None:
    """Making the cache anew on the second visit would forget what the first one put in."""
    looped.answer(None, NewCache(0))
    looped.answer(MicroBatch(0, PROMPTS[0]))
    looped.answer(MicroBatch(1, PROMPTS[0]), NewCache(1))
    apart, together = (
        looped.answer(decode(index, position=len(PROMPTS[0]) + 1)).sampled for index in (0, 1)
    )
    assert len(apart) == 1
    assert apart == together


def test_a_cache_made_again_is_empty(chain: Chain) -> None:
    fresh = chain.answer(decode(0), NewCache(0))
    grown = chain.answer(decode(0, position=2))
    again = chain.answer(decode(0), DropCache(0), NewCache(0))
    assert fresh.sampled == again.sampled
    assert grown.error is None


def test_an_older_epoch_is_dropped_and_a_newer_one_clears_the_caches(chain: Chain) -> None:
    chain.answer(decode(0), NewCache(0))
    assert chain.answer(decode(0), epoch=3).error == NO_CACHE_0
    assert chain.num_caches() == [0, 0]
    for executor in chain.executors:
        assert executor.run(Step(2, 9, (NewCache(5),), decode(5))) is None
        assert executor.begin(Step(1, 9, (NewCache(5),))) is None
    assert chain.num_caches() == [0, 0]
    assert len(chain.answer(decode(0), NewCache(0), epoch=3).sampled) == 1


@pytest.mark.parametrize("name", ["llama", "nanbeige"])
def test_what_comes_twice_or_too_late_is_dropped(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    chain = Chain(new_executors(name, (3,)))
    undisturbed = Chain(new_executors(name, (3,)))
    seen: list[list[Step]] = [[], []]
    for number in range(4):
        operations = (NewCache(0),) if number == 0 else ()
        chain.submit(decode(0, 7 + number), *operations)
        while not chain.results:
            for inbox, before in zip(chain.inboxes, seen, strict=True):
                if inbox and inbox[-1] not in before:
                    before.append(inbox[-1])
                    # All that came before comes again, the newest as well.
                    inbox.extend(before)
            chain.work_once()
        answer = chain.results.popleft()
        expected = undisturbed.answer(decode(0, 7 + number), *operations)
        assert without_timings(answer) == without_timings(expected)
    while chain.work_once():
        pass
    assert not chain.results, "each step has one result"
    assert all(executor.num_dropped > 0 for executor in chain.executors)
    assert "came twice or too late" in caplog.text


def test_one_that_was_overtaken_is_dropped(chain: Chain) -> None:
    first = chain.executors[0]
    assert first.run(Step(1, 0, (NewCache(0),))) is not None
    assert first.run(Step(1, 2, (NewCache(2),))) is not None
    assert first.run(Step(1, 1, (NewCache(1),))) is None
    assert (first.num_caches, first.num_dropped) == (2, 1)
    # Numbers begin anew with an epoch.
    assert first.run(Step(2, 0, (NewCache(3),))) is not None
    assert first.num_caches == 1


# Examinations


def examine(chain: Chain, cache_id: int = 50) -> Result:
    batch = MicroBatch(cache_id, PROMPTS[0], (Sample(GREEDY, 17),), is_examined=True)
    result = chain.answer(batch, NewCache(cache_id))
    assert chain.answer(None, DropCache(cache_id)).error is None
    return result


@pytest.mark.parametrize(("name", "num_visits"), [("llama", 3), ("mamba2", 3), ("nanbeige", 6)])
def test_an_examination_gives_the_same_bits_each_time(name: str, num_visits: int) -> None:
    chain = Chain(new_executors(name, (1, 2)))
    first = examine(chain)
    assert first.error is None
    assert len(first.digests) == len(first.timings) == num_visits
    assert len(set(first.digests)) == num_visits, "no two stages send the same"
    (sampled,) = first.sampled
    assert sampled.token == unsharded_tokens(name, PROMPTS[0])[0]
    assert len(sampled.top) == 2
    # With other sequences on the stages, and on stages that were started again.
    chain.answer(MicroBatch(0, PROMPTS[1]), NewCache(0))
    chain.answer(MicroBatch(1, PROMPTS[3]), NewCache(1))
    assert chain.answer(decode_rows(9, 3, 4), JoinLane(9, (0, 1))).digests == ()
    restarted = Chain(new_executors(name, (1, 2)))
    for again in (examine(chain), examine(chain, 51), examine(restarted)):
        assert (again.digests, again.sampled) == (first.digests, first.sampled)


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_the_first_digest_that_differs_is_of_the_stage_that_is_wrong(wrong: int) -> None:
    chain = Chain(new_executors("llama", (1, 2)))
    examinations = [examination(examine(chain)) for _ in range(2)]
    baseline = Baseline(examinations, num_stages=3, tolerance=0.0)
    assert baseline.is_exact
    assert baseline.compare(examination(examine(chain))) is None
    name = f"model.layers.{wrong}.self_attn.q_proj.weight"
    weights = {**parameters("llama"), name: with_one_bit_flipped(parameters("llama")[name])}
    damaged = new_executors("llama", (1, 2), weights=weights)[wrong]
    now = Chain([*chain.executors[:wrong], damaged, *chain.executors[wrong + 1 :]], epoch=2)
    assert baseline.compare(examination(examine(now))) == Suspects(wrong, wrong)


def examination(result: Result) -> Examination:
    (sampled,) = result.sampled
    return Examination(result.digests, sampled)


def with_one_bit_flipped(weight: mx.array) -> mx.array:
    bits = np.array(weight).copy()
    bits.view(np.uint32)[3, 5] ^= 1 << 22
    return mx.array(bits)


@pytest.mark.parametrize("name", ["llama", "nanbeige"])
def test_an_unknown_cache_is_an_error_that_passes_the_later_stages(name: str) -> None:
    chain = Chain(new_executors(name, (1, 2)))
    chain.answer(None, NewCache(0))
    before = chain.answer(decode(0))
    failed = chain.answer(decode(99), DropCache(0), NewCache(1))
    assert failed.error == "stage 0: no cache 99 on this stage"
    assert failed.sampled == ()
    assert len(failed.timings) == 3
    # Its cache operations are done everywhere all the same.
    assert chain.num_caches() == [1, 1, 1]
    assert chain.answer(decode(1)).sampled == before.sampled


FAILING_ON_LANES = {
    "a join of nothing": (JoinLane(2, (0, 99)), "no cache 99 on this stage"),
    "a join twice": (JoinLane(2, (0, 0)), "cannot join lane 2"),
    "no row is kept": (KeepRows(0, ()), "no rows ()"),
}
FAILING_ELSEWHERE = {
    "a copy of nothing": (CopyCache(2, 99, 0), "no cache 99 on this stage"),
    "more is trimmed than there is": (CopyCache(2, 0, 99), "cannot take 99 tokens back"),
    "a row that is not there": (TakeRow(2, 0, 1), "no rows (1,) in a lane of 1"),
    "no folder to save in": (SaveCache(0, NAME), "saves no caches"),
    "no folder to load from": (LoadCache(2, NAME), "saves no caches"),
    "no folder to forget in": (ForgetSaved(NAME), "saves no caches"),
    "no folder to keep files in": (KeepSaved((NAME,)), "saves no caches"),
}
FAILING = FAILING_ON_LANES | FAILING_ELSEWHERE
# What follows the one that fails: in the end there is an empty cache 3.
LATER = NewCache(3), CopyCache(4, 3, 0), DropCache(4)


@pytest.mark.parametrize(("operation", "message"), FAILING.values(), ids=FAILING.keys())
def test_an_operation_that_fails_alone_is_told_and_the_later_ones_are_applied(
    operation: CacheOperation, message: str, chain: Chain
) -> None:
    expected = chain.answer(decode(0), NewCache(0))
    chain.answer(None, DropCache(0), NewCache(0))
    failed = chain.answer(None, operation, *LATER)
    assert failed.error is not None
    assert failed.error.startswith("stage 0: ")
    assert message in failed.error
    assert chain.num_caches() == [2, 2]
    # What it failed on is as it was, and the step after it is none the worse.
    after = chain.answer(decode(0))
    assert after.error is None
    assert after.sampled == expected.sampled
    assert chain.answer(decode(3)).sampled == expected.sampled


@pytest.mark.parametrize(
    ("operation", "message"), FAILING_ON_LANES.values(), ids=FAILING_ON_LANES.keys()
)
def test_a_lane_that_is_not_what_it_should_be_stops_the_micro_batch(
    operation: CacheOperation, message: str, chain: Chain
) -> None:
    expected = chain.answer(decode(0), NewCache(0))
    chain.answer(None, DropCache(0), NewCache(0))
    # The micro-batch could have gone on with what is there: it must not.
    failed = chain.answer(decode(0), operation, *LATER)
    assert failed.error is not None
    assert failed.error.startswith("stage 0: ")
    assert message in failed.error
    assert failed.sampled == ()
    # The later ones are applied, and the step's own cache, which lacks a token now, is gone.
    assert chain.num_caches() == [1, 1]
    assert chain.answer(decode(0)).error == NO_CACHE_0
    assert chain.answer(decode(3)).sampled == expected.sampled


@pytest.mark.parametrize(
    ("operation", "message"), FAILING_ELSEWHERE.values(), ids=FAILING_ELSEWHERE.keys()
)
def test_a_cache_that_cannot_be_made_or_kept_does_not_stop_the_micro_batch(
    operation: CacheOperation, message: str, chain: Chain, caplog: pytest.LogCaptureFixture
) -> None:
    expected = chain.answer(decode(0), NewCache(0))
    chain.answer(None, DropCache(0), NewCache(0))
    result = chain.answer(decode(0), operation, *LATER)
    assert result.error is None
    assert result.sampled == expected.sampled
    logged = [record.getMessage() for record in caplog.records]
    assert [text.startswith(f"stage {index}: ") for index, text in enumerate(logged)] == [True] * 2
    assert all(message in text for text in logged)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert chain.num_caches() == [2, 2]
    assert chain.answer(decode(3)).sampled == expected.sampled
    # Whoever needs what could not be made finds it missing.
    assert chain.answer(decode(2)).error == "stage 0: no cache 2 on this stage"


@pytest.mark.parametrize("operation", [CopyCache(2, 99, 0), TakeRow(2, 99, 0), LoadCache(2, NAME)])
def test_the_micro_batch_that_needs_it_finds_it_missing(
    operation: CacheOperation, chain: Chain
) -> None:
    assert chain.answer(decode(2), operation).error == "stage 0: no cache 2 on this stage"


def test_an_operation_that_fails_beside_a_lane_does_not_hide_what_is_wrong_with_it(
    chain: Chain,
) -> None:
    failed = chain.answer(decode(0), NewCache(0), CopyCache(1, 8, 0), JoinLane(2, (9,)))
    assert failed.error == "stage 0: no cache 9 on this stage"


def test_the_first_operation_that_fails_is_the_one_that_is_told(chain: Chain) -> None:
    failed = chain.answer(None, NewCache(0), CopyCache(1, 8, 0), CopyCache(2, 9, 0))
    assert failed.error == "stage 0: no cache 8 on this stage"


def test_an_operation_that_fails_unforeseen_does_not_keep_the_later_ones(chain: Chain) -> None:
    """Stages would hold different caches from then on, were it one stage's failure."""
    for cache_id in range(4):
        chain.answer(MicroBatch(cache_id, (1, 2, 3)), NewCache(cache_id))
    chain.answer(None, JoinLane(10, (0, 1)), JoinLane(11, (2,)))
    failed = chain.answer(None, JoinLane(11, (10,)), NewCache(20), NewCache(21), DropCache(3))
    assert failed.error is not None
    assert chain.answer(decode(20)).error is None
    assert chain.answer(decode(3)).error is not None


ids = st.integers(0, 3)
rows = st.lists(st.integers(0, 2), max_size=3).map(tuple)
any_operation = st.one_of(
    st.builds(NewCache, ids),
    st.builds(NewCache, ids),
    st.builds(CopyCache, ids, ids, st.integers(0, 3)),
    st.builds(JoinLane, ids, st.lists(ids, max_size=3).map(tuple)),
    st.builds(TakeRow, ids, ids, st.integers(0, 2)),
    st.builds(KeepRows, ids, rows),
    st.builds(DropCache, ids),
)
any_steps = st.lists(
    st.tuples(
        st.lists(any_operation, max_size=4),
        st.none() | ids,
        st.sampled_from(["chunk", "decode", "two rows"]),
    ),
    min_size=1,
    max_size=8,
)


@cache
def fuzzed_executors() -> list[StageExecutor]:
    return new_executors("llama", (3,))


epochs = count(1)


@settings(deadline=None, max_examples=60)
@given(any_steps)
def test_whatever_comes_all_stages_hold_the_same_caches(
    script: list[tuple[list[CacheOperation], int | None, str]],
) -> None:
    chain = Chain(fuzzed_executors(), epoch=next(epochs))
    # A sequence past its windows, an empty one, and a lane of two.
    chain.answer(MicroBatch(0, PROMPTS[0]), NewCache(0), NewCache(1))
    chain.answer(MicroBatch(2, (1, 2, 3)), NewCache(2))
    assert chain.answer(decode_rows(3, 1, 2), CopyCache(3, 2, 1), JoinLane(3, (2,))).error is None
    for operations, cache_id, kind in script:
        batch = None
        if cache_id is not None:
            batch = {
                "chunk": MicroBatch(cache_id, (1, 2, 3)),
                "decode": decode(cache_id),
                "two rows": decode_rows(cache_id, 4, 5),
            }[kind]
        result = chain.answer(batch, *operations)
        assert len(result.timings) == 2
        assert (result.error is not None) or len(result.sampled) == (
            len(batch.samples) if batch is not None else 0
        )
        assert len(set(chain.num_caches())) == 1
    # However bad it was, a new sequence gets its answer.
    assert chain.answer(decode(7), DropCache(7), NewCache(7)).error is None
    chain.answer(None, DropCache(7))


def test_a_stage_in_the_middle_names_itself() -> None:
    chain = Chain(new_executors("llama", (1, 2)))
    chain.answer(None, NewCache(0))
    chain.run_at(1, DropCache(0))
    assert chain.answer(decode(0)).error == NO_CACHE_0.replace("stage 0", "stage 1")


def test_a_step_marked_with_an_error_is_passed_on_with_its_operations_applied() -> None:
    first, last = new_executors("llama", (3,))
    before = (VisitTiming(5, 1),)
    step = Step(1, 4, (NewCache(3), NewCache(5)), decode(3), error="broken before", timings=before)
    passed = first.run(step)
    assert isinstance(passed, Step)
    assert (passed.error, passed.boundary) == ("broken before", None)
    assert passed.operations == step.operations
    assert passed.timings[:1] == before
    result = last.run(passed)
    assert isinstance(result, Result)
    assert (result.step_id, result.error, result.sampled) == (4, "broken before", ())
    assert len(result.timings) == 3
    # Both were made. The micro-batch's own lacks a token and is gone again.
    for executor in (first, last):
        assert executor.num_caches == 1
        executor.run(Step(1, 5, (DropCache(5),)))
        assert executor.num_caches == 0


@pytest.mark.parametrize("name", ["llama", "nanbeige"])
def test_nothing_is_made_of_a_cache_whose_step_has_failed(name: str) -> None:
    """Copies of it would lack tokens on the stages that did not compute the step."""
    chain = Chain(new_executors(name, (1, 2)))
    chain.answer(MicroBatch(0, (1, 2, 3)), NewCache(0), NewCache(1))
    chain.run_at(1, DropCache(0))
    stage_1 = NO_CACHE_0.replace("stage 0", "stage 1")
    assert chain.answer(MicroBatch(0, (4, 5))).error == stage_1
    # The first stage has computed it, and keeps it; a copy of it fails on the others.
    assert chain.num_caches() == [2, 1, 1]
    assert chain.answer(None, CopyCache(2, 0, 0)).error == stage_1
    assert chain.answer(decode(2)).error == stage_1.replace("cache 0", "cache 2")
    assert chain.answer(None, DropCache(0), DropCache(2)).error is None
    assert chain.num_caches() == [1, 1, 1]


def test_a_step_that_fails_when_it_is_waited_for_leaves_no_cache(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.answer(MicroBatch(0, (1, 2, 3)), NewCache(0))

    def fail(_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(executor_module, "_wait_for", fail)
    failed = chain.answer(decode(0))
    monkeypatch.undo()
    assert failed.error == "stage 0 failed: RuntimeError: out of memory"
    assert chain.num_caches() == [0, 0]
    assert chain.answer(None, CopyCache(1, 0, 0)).error == NO_CACHE_0


@pytest.mark.parametrize("is_alone", [True, False])
def test_only_a_step_that_is_alone_is_computed_while_its_graph_is_built(
    is_alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[bool] = []
    forward = StageModel.forward

    def noting(*args: Any, starts_early: bool = False, **kwargs: Any) -> Any:
        started.append(starts_early)
        return forward(*args, starts_early=starts_early, **kwargs)

    monkeypatch.setattr(StageModel, "forward", noting)
    (executor,) = new_executors("llama", ())
    assert executor.begin(Step(1, 0, (NewCache(0),), decode(0)), is_alone=is_alone) is not None
    assert started == [is_alone]


def test_no_hidden_states_for_a_later_stage_is_an_error() -> None:
    _, last = new_executors("llama", (3,))
    result = last.run(Step(1, 0, (NewCache(0),), decode(0)))
    assert isinstance(result, Result)
    assert result.error is not None
    assert "no hidden states" in result.error


@pytest.mark.parametrize("visit", [-1, 1, 7])
@pytest.mark.parametrize("cuts", [(), (3,)])
def test_a_visit_that_no_model_makes_is_an_error(visit: int, cuts: tuple[int, ...]) -> None:
    for executor in new_executors("llama", cuts):
        executor.run(Step(1, 0, (NewCache(0),)))
        output = executor.run(Step(1, 1, (), decode(0), visit))
        assert output is not None
        assert output.error is not None
        assert f"no visit {visit}" in output.error
