"""A sequence's way through the pipeline equals mlx-lm's way through a model."""

import importlib
from typing import Any

import mlx.core as mx
import pytest

from tbcluster.core import FinishReason, MicroBatch, Request, SampledToken, SamplingParams
from tbcluster.engine.detokenizer import TextStream
from tbcluster.engine.sequence import Sequence
from tests.doubles.text_double import CharacterDetokenizer

VOCAB_SIZE = 8


def new_sequence(prompt: tuple[int, ...], **fields: Any) -> Sequence:
    request = Request("r", prompt, **{"max_tokens": 4, **fields})
    return Sequence(request, 7, lambda _: None, TextStream(CharacterDetokenizer(), ()), 1.5)


def take(sequence: Sequence, chunk_tokens: int) -> MicroBatch:
    micro_batch = sequence.next_micro_batch(chunk_tokens)
    sequence.num_scheduled += len(micro_batch.tokens)
    return micro_batch


class RecordingModel:
    """Notes the tokens of each call; always picks the token after the last one."""

    def __init__(self) -> None:
        self.layers: list[Any] = []
        self.calls: list[list[int]] = []

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        self.calls.append([int(token) for token in tokens[0]])
        following = (self.calls[-1][-1] + 1) % VOCAB_SIZE
        return mx.where(mx.arange(VOCAB_SIZE) == following, 1.0, 0.0)[None, None]


def mlx_lm_calls(prompt: tuple[int, ...], chunk_tokens: int, num_tokens: int) -> list[list[int]]:
    # Not `import mlx_lm.generate`: the package has a function of that name.
    generate = importlib.import_module("mlx_lm.generate")
    model = RecordingModel()
    steps = generate.generate_step(
        mx.array(prompt), model, max_tokens=num_tokens, prefill_step_size=chunk_tokens
    )
    assert len(list(steps)) == num_tokens
    # mlx-lm computes one token ahead of those it hands out.
    return model.calls[:-1]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 13])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 4, 100])
def test_chunks_equal_mlx_lm(length: int, chunk_tokens: int) -> None:
    prompt = tuple(index % VOCAB_SIZE for index in range(length))
    sequence = new_sequence(prompt)
    calls = []
    while sequence.num_generated < 3:
        micro_batch = take(sequence, chunk_tokens)
        calls.append(list(micro_batch.tokens))
        if micro_batch.sample is not None:
            sequence.tokens.append((sequence.tokens[-1] + 1) % VOCAB_SIZE)
    assert calls == mlx_lm_calls(prompt, chunk_tokens, 3)


def test_micro_batches_one_by_one() -> None:
    params = SamplingParams(temperature=0.5, seed=3)
    sequence = new_sequence((10, 11, 12, 13, 14, 15), sampling=params)
    assert take(sequence, 3) == MicroBatch(7, (10, 11, 12))
    assert take(sequence, 3) == MicroBatch(7, (13, 14))
    last = take(sequence, 3)
    assert last.tokens == (15,)
    assert last.sample is not None
    assert last.sample.params is params
    assert last.sample.position == 6
    assert sequence.num_ready == 0
    sequence.tokens.append(20)
    assert sequence.num_ready == 1
    decode = take(sequence, 3)
    assert decode.tokens == (20,)
    assert decode.sample is not None
    assert decode.sample.position == 7


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
    sequence.first_token_at = 2.5
    output = sequence.output("text", SampledToken(5), 4.0, FinishReason.LENGTH, 2)
    assert (output.text, output.sampled, output.finish_reason) == (
        "text",
        SampledToken(5),
        "length",
    )
    assert (output.num_prompt_tokens, output.num_generated_tokens) == (3, 2)
    assert (output.started_at, output.first_token_at, output.emitted_at) == (1.5, 2.5, 4.0)
