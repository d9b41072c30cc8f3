"""Real executors in one process, over tiny random models and the real wire format."""

import random
from collections import deque
from functools import cache
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.core import (
    CacheOperation,
    DropCache,
    MicroBatch,
    NewCache,
    Request,
    Sample,
    SamplingParams,
    TokenId,
)
from tbcluster.engine.detokenizer import TextStream
from tbcluster.engine.scheduler import Scheduler
from tbcluster.engine.sequence import Sequence
from tbcluster.model.slicing import StageModel
from tbcluster.model.tracer import trace
from tbcluster.stage.executor import StageExecutor
from tbcluster.wire.messages import (
    Result,
    Step,
    decode_result,
    decode_step,
    encode_result,
    encode_step,
)
from tests.doubles import architectures
from tests.doubles.text_double import CharacterDetokenizer

GREEDY = SamplingParams()
NO_CACHE_0 = "stage 0: no cache 0 on this stage"
CHUNK_TOKENS = 5
NUM_TOKENS = 6
PROMPTS = [tuple(np.random.default_rng(n).integers(0, 900, n).tolist()) for n in (17, 12)]


@cache
def parameters(name: str) -> dict[str, mx.array]:
    return architectures.random_parameters(architectures.build(name))


def new_executors(name: str, cuts: tuple[int, ...], epoch: int = 1) -> list[StageExecutor]:
    traced = trace(architectures.build(name))
    bounds = [0, *cuts, traced.num_layers]
    return [
        StageExecutor(
            StageModel(
                architectures.load(architectures.build(name), parameters(name)), traced, start, end
            ),
            index,
            len(bounds) - 1,
            epoch,
        )
        for index, (start, end) in enumerate(pairwise(bounds))
    ]


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
    """Executors joined by queues of encoded messages; any of them may be the next to work."""

    def __init__(self, executors: list[StageExecutor], seed: int = 0) -> None:
        self.executors = executors
        self.inboxes: list[deque[Step]] = [deque() for _ in executors]
        self.results: deque[Result] = deque()
        self._random = random.Random(seed)
        self.submitted: list[MicroBatch | None] = []

    def submit(
        self, micro_batch: MicroBatch | None, *operations: CacheOperation, epoch: int = 1
    ) -> None:
        step = Step(epoch, len(self.submitted), operations, micro_batch)
        self.submitted.append(micro_batch)
        self.inboxes[0].append(over_the_wire(step))

    def work_once(self) -> bool:
        busy = [index for index, inbox in enumerate(self.inboxes) if inbox]
        if not busy:
            return False
        index = self._random.choice(busy)
        output = self.executors[index].run(self.inboxes[index].popleft())
        if isinstance(output, Result):
            self.results.append(decode_result(encode_result(output)))
        elif output is not None:
            self.inboxes[(index + 1) % len(self.inboxes)].append(over_the_wire(output))
        return True

    def result(self) -> Result:
        """The next result; there must be one to come."""
        while not self.results:
            assert self.work_once(), "nothing is under way"
        return self.results.popleft()

    def answer(
        self, micro_batch: MicroBatch | None, *operations: CacheOperation, epoch: int = 1
    ) -> Result:
        self.submit(micro_batch, *operations, epoch=epoch)
        return self.result()

    def num_caches(self) -> list[int]:
        return [executor.num_caches for executor in self.executors]


def over_the_wire(step: Step) -> Step:
    return decode_step([bytes(frame) for frame in encode_step(step)])


def answers(
    chain: Chain, prompts: list[tuple[TokenId, ...]], max_per_sequence: int
) -> list[list[TokenId]]:
    """Greedy answers to all prompts at once, in the order that the scheduler chooses."""
    scheduler = Scheduler(len(chain.executors) + 1, CHUNK_TOKENS, max_per_sequence)
    sequences = []
    for index, prompt in enumerate(prompts):
        text = TextStream(CharacterDetokenizer(), ())
        request = Request(str(index), prompt, NUM_TOKENS)
        sequences.append(Sequence(request, index, lambda _: None, text, 0.0))
        scheduler.add(sequences[-1])
    chain.answer(None, *(NewCache(index) for index in range(len(prompts))))
    while scheduler.num_sequences:
        while micro_batch := scheduler.schedule():
            chain.submit(micro_batch)
        result = chain.result()
        assert result.error is None
        done = chain.submitted[result.step_id]
        assert done is not None
        sequence = sequences[done.cache_id]
        scheduler.completed(sequence)
        assert (result.sampled is None) == (done.sample is None)
        if result.sampled is not None:
            sequence.tokens.append(result.sampled.token)
            if sequence.num_generated == NUM_TOKENS:
                scheduler.remove(sequence)
    return [sequence.tokens[len(sequence.request.prompt) :] for sequence in sequences]


@pytest.mark.parametrize("cuts", [(), (3,), (1, 2, 5)])
@pytest.mark.parametrize("max_per_sequence", [1, 99])
def test_a_chain_equals_the_unsharded_model(cuts: tuple[int, ...], max_per_sequence: int) -> None:
    for seed in range(3):
        chain = Chain(new_executors("llama", cuts), seed)
        got = answers(chain, PROMPTS, max_per_sequence)
        assert got == [unsharded_tokens("llama", prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("cuts", [(), (2,), (1, 3)])
def test_a_looped_model_visits_the_stages_twice(cuts: tuple[int, ...]) -> None:
    for seed in range(3):
        chain = Chain(new_executors("nanbeige", cuts), seed)
        got = answers(chain, PROMPTS, max_per_sequence=1)
        assert got == [unsharded_tokens("nanbeige", prompt) for prompt in PROMPTS]


def decode(cache_id: int, token: TokenId = 7, position: int = 1) -> MicroBatch:
    return MicroBatch(cache_id, (token,), Sample(GREEDY, position))


@pytest.fixture
def chain() -> Chain:
    return Chain(new_executors("llama", (3,)))


@pytest.fixture
def looped() -> Chain:
    return Chain(new_executors("nanbeige", (2,)))


def test_one_compute_time_per_visit(chain: Chain, looped: Chain) -> None:
    assert len(chain.answer(decode(0), NewCache(0)).compute_us) == 2
    assert len(looped.answer(decode(0), NewCache(0)).compute_us) == 4


def test_operations_alone(chain: Chain, looped: Chain) -> None:
    for either in (chain, looped):
        result = either.answer(None, NewCache(1), NewCache(2))
        assert result.sampled is None
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
    params = SamplingParams(num_logprobs=0)
    apart, together = (
        looped.answer(MicroBatch(index, (7,), Sample(params, len(PROMPTS[0]) + 1))).sampled
        for index in (0, 1)
    )
    assert apart is not None
    assert apart == together


def test_a_cache_made_again_is_empty(chain: Chain) -> None:
    fresh = chain.answer(decode(0), NewCache(0))
    grown = chain.answer(decode(0, position=2))
    again = chain.answer(decode(0), DropCache(0), NewCache(0))
    assert fresh.sampled == again.sampled
    assert grown.error is None


def test_an_older_epoch_is_dropped_and_a_newer_one_clears_the_caches(chain: Chain) -> None:
    chain.answer(decode(0), NewCache(0))
    assert chain.answer(decode(0), epoch=3).error == "stage 0: no cache 0 on this stage"
    assert chain.num_caches() == [0, 0]
    for executor in chain.executors:
        assert executor.run(Step(2, 9, (NewCache(5),), decode(5))) is None
        assert executor.run(Step(1, 9, (NewCache(5),))) is None
    assert chain.num_caches() == [0, 0]
    assert chain.answer(decode(0), NewCache(0), epoch=3).sampled is not None


@pytest.mark.parametrize("name", ["llama", "nanbeige"])
def test_an_unknown_cache_is_an_error_that_passes_the_later_stages(name: str) -> None:
    chain = Chain(new_executors(name, (1, 2)))
    chain.answer(None, NewCache(0))
    before = chain.answer(decode(0))
    failed = chain.answer(decode(99), DropCache(0), NewCache(1))
    assert failed.error == "stage 0: no cache 99 on this stage"
    assert failed.sampled is None
    assert len(failed.compute_us) == 3
    # Its cache operations are done everywhere all the same.
    assert chain.num_caches() == [1, 1, 1]
    assert chain.answer(decode(1)).sampled == before.sampled


def test_a_stage_in_the_middle_names_itself() -> None:
    chain = Chain(new_executors("llama", (1, 2)))
    chain.answer(None, NewCache(0))
    chain.executors[1].run(Step(1, 99, (DropCache(0),)))
    assert chain.answer(decode(0)).error == NO_CACHE_0.replace("stage 0", "stage 1")


def test_a_step_marked_with_an_error_is_passed_on_with_its_operations_applied() -> None:
    first, last = new_executors("llama", (3,))
    step = Step(1, 4, (NewCache(3),), decode(3), error="broken before", compute_us=(5,))
    passed = first.run(step)
    assert isinstance(passed, Step)
    assert (passed.error, passed.boundary) == ("broken before", None)
    assert passed.operations == step.operations
    result = last.run(passed)
    assert isinstance(result, Result)
    assert (result.step_id, result.error, result.sampled) == (4, "broken before", None)
    assert [first.num_caches, last.num_caches] == [1, 1]


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
