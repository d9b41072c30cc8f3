"""A sequence's way through the pipeline equals mlx-lm's way through a model."""

import importlib
from collections import deque
from itertools import chain, takewhile
from typing import Any

import mlx.core as mx
import pytest

from tbcluster.core import (
    FinishReason,
    MicroBatch,
    Request,
    Sample,
    SampledToken,
    SamplingParams,
    VisitTiming,
)
from tbcluster.engine.prefix_index import PrefixEntry
from tbcluster.engine.sequence import Sequence
from tests.doubles.engines import Settings, new_caches, new_scheduler

VOCAB_SIZE = 8
NUM_GENERATED = 3


def new_sequence(prompt: tuple[int, ...], **fields: Any) -> Sequence:
    request = Request("r", prompt, **{"max_tokens": 4, **fields})
    return Sequence(request, lambda _: None, 7)


class RecordingModel:
    """Notes the tokens of each call; always picks the token after the last one."""

    def __init__(self) -> None:
        self.layers: list[Any] = []
        self.calls: list[list[int]] = []

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        self.calls.append([int(token) for token in tokens[0]])
        following = (self.calls[-1][-1] + 1) % VOCAB_SIZE
        return mx.where(mx.arange(VOCAB_SIZE) == following, 1.0, 0.0)[None, None]


def mlx_lm_calls(prompt: tuple[int, ...], chunk_tokens: int) -> list[list[int]]:
    # Not `import mlx_lm.generate`: the package has a function of that name.
    generate = importlib.import_module("mlx_lm.generate")
    model = RecordingModel()
    steps = generate.generate_step(
        mx.array(prompt), model, max_tokens=NUM_GENERATED, prefill_step_size=chunk_tokens
    )
    assert len(list(steps)) == NUM_GENERATED
    # mlx-lm computes one token ahead of those it hands out.
    return model.calls[:-1]


def pipeline_calls(prompt: tuple[int, ...], settings: Settings) -> list[MicroBatch]:
    """What one request sends through the stages until it has its tokens."""
    caches = new_caches(settings)
    scheduler = new_scheduler(settings, caches)
    sequence = new_sequence(prompt)
    started = caches.start(sequence.tokens, uses_prefixes=False)
    assert started is not None
    sequence.cache_id = started.cache_id
    scheduler.add(sequence)
    calls: list[MicroBatch] = []
    in_flight: deque[MicroBatch] = deque()
    while sequence.num_generated < NUM_GENERATED:
        while micro_batch := scheduler.schedule():
            calls.append(micro_batch)
            in_flight.append(micro_batch)
        done = in_flight.popleft()
        assert scheduler.completed(done, (VisitTiming(10, 0),)) == [sequence]
        if done.samples:
            sequence.tokens.append((sequence.tokens[-1] + 1) % VOCAB_SIZE)
    return calls


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 13])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 4, 100])
def test_chunks_on_one_stage_are_as_many_as_mlx_lms_and_even(
    length: int, chunk_tokens: int
) -> None:
    prompt = tuple(index % VOCAB_SIZE for index in range(length))
    calls = pipeline_calls(prompt, Settings(num_stages=1, chunk_tokens=chunk_tokens))
    theirs = mlx_lm_calls(prompt, chunk_tokens)
    chunks = [list(call.tokens) for call in takewhile(lambda call: not call.samples, calls)]
    decodes = [list(call.tokens) for call in calls if call.samples]
    assert len(chunks) + len(decodes) == len(calls) == len(theirs)
    # The same tokens in the same order; the last of the prompt is a decode step, as in mlx-lm.
    assert list(chain.from_iterable(chunks)) == list(prompt[:-1])
    assert decodes == theirs[len(chunks) :]
    sizes = [len(chunk) for chunk in chunks]
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    if not chunks or len(chunks[-1]) == chunk_tokens or len(chunks) == 1:
        assert chunks == theirs[: len(chunks)]


@pytest.mark.parametrize("num_stages", [2, 5])
@pytest.mark.parametrize("max_per_sequence", [1, 99])
@pytest.mark.parametrize("length", [1, 2, 9, 40])
def test_on_several_stages_the_tokens_are_the_same(
    num_stages: int, max_per_sequence: int, length: int
) -> None:
    prompt = tuple(index % VOCAB_SIZE for index in range(length))
    settings = Settings(num_stages, max_per_sequence=max_per_sequence, chunk_tokens=3)
    calls = pipeline_calls(prompt, settings)
    theirs = mlx_lm_calls(prompt, 3)
    assert list(chain(*(call.tokens for call in calls))) == list(chain(*theirs))
    assert [call.num_rows for call in calls] == [1] * len(calls)
    assert [len(call.tokens) for call in calls if call.samples] == [1] * NUM_GENERATED


def test_what_is_left_to_compute() -> None:
    sequence = new_sequence((10, 11, 12, 13, 14, 15))
    assert (sequence.num_ready, sequence.num_prefill, sequence.num_generated) == (6, 5, 0)
    sequence.num_scheduled = 4
    assert (sequence.num_ready, sequence.num_prefill) == (2, 1)
    sequence.num_scheduled = 5
    assert (sequence.num_ready, sequence.num_prefill) == (1, 0)
    sequence.num_scheduled = 6  # the step that samples is on its way
    assert sequence.num_ready == 0
    sequence.tokens.append(20)
    assert (sequence.num_ready, sequence.num_prefill, sequence.num_generated) == (1, 0, 1)


def test_a_sample_tells_how_many_tokens_go_before() -> None:
    params = SamplingParams(temperature=0.5, seed=3)
    sequence = new_sequence((10, 11, 12), sampling=params)
    assert sequence.next_sample() == Sample(params, 3)
    sequence.tokens.append(20)
    assert sequence.next_sample() == Sample(params, 4)


def test_one_that_starts_over_computes_all_its_tokens_again_and_keeps_them() -> None:
    sequence = new_sequence((10, 11, 12))
    sequence.tokens += [20, 21]
    sequence.cache_id, sequence.num_scheduled, sequence.num_in_flight = 3, 4, 1
    sequence.start_over()
    assert sequence.cache_id is None
    assert (sequence.num_scheduled, sequence.num_in_flight) == (0, 0)
    assert sequence.tokens == [10, 11, 12, 20, 21]
    assert (sequence.num_prefill, sequence.num_generated) == (4, 2)
    # The token after them is sampled as it would have been.
    assert sequence.next_sample().position == 5


@pytest.mark.parametrize("cache_prompt", [False, True])
def test_the_request_says_whether_known_prefixes_are_used(cache_prompt: bool) -> None:
    assert new_sequence((1,), cache_prompt=cache_prompt).uses_prefixes is cache_prompt


@pytest.mark.parametrize(
    ("generated", "reason"),
    [
        ([5], None),
        ([5, 5, 5], None),
        ([5, 5, 5, 5], FinishReason.LENGTH),
        ([9], FinishReason.STOP),
        ([5, 5, 5, 9], FinishReason.STOP),
    ],
)
def test_finish_reason(generated: list[int], reason: FinishReason | None) -> None:
    # The stop token in the prompt ends nothing.
    sequence = new_sequence((9, 1), stop_tokens=frozenset({9}))
    sequence.tokens += generated
    assert sequence.finish_reason_after(generated[-1]) == reason


def test_output_tells_counts_and_times() -> None:
    sequence = new_sequence((1, 2, 3))
    sequence.started_at, sequence.first_token_at = 1.5, 2.5
    sequence.num_cached_tokens = 2
    sequence.started_from = PrefixEntry((1, 2), 4)
    output = sequence.output("text", SampledToken(5), 4.0, FinishReason.LENGTH, 2)
    assert (output.text, output.sampled, output.finish_reason) == (
        "text",
        SampledToken(5),
        "length",
    )
    assert (output.num_prompt_tokens, output.num_generated_tokens) == (3, 2)
    assert output.num_cached_tokens == 2
    assert (output.started_at, output.first_token_at, output.emitted_at) == (1.5, 2.5, 4.0)
