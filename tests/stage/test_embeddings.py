"""Prompt chunks that are pooled, through real executors and the real wire format."""

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.core import MicroBatch, Pooling, TokenId
from tbcluster.wire.operations import NewCache
from tests.doubles import architectures
from tests.stage.test_executor import (
    CHUNK_TOKENS,
    PROMPTS,
    Chain,
    decode,
    new_executors,
    parameters,
)

PROMPT = PROMPTS[3]
CHUNKS = [PROMPT[i : i + CHUNK_TOKENS] for i in range(0, len(PROMPT), CHUNK_TOKENS)]


def unsharded(name: str, tokens: tuple[TokenId, ...]) -> npt.NDArray[np.float32]:
    """What mlx-lm's own inner model returns: (num_tokens, width)."""
    model = architectures.load(architectures.build(name), parameters(name))
    return np.array(model.model(mx.array([tokens]), cache=make_prompt_cache(model))[0])


def pooled(
    chain: Chain, pooling: Pooling, chunks: list[tuple[TokenId, ...]]
) -> list[npt.NDArray[np.float32]]:
    for index, chunk in enumerate(chunks):
        operations = [NewCache(0)] if index == 0 else []
        chain.submit(MicroBatch(0, chunk, pooling=pooling), *operations)
    vectors = []
    for _ in chunks:
        result = chain.result()
        assert (result.error, result.sampled) == (None, ())
        assert result.vector is not None
        vectors.append(np.frombuffer(result.vector, "<f4"))
    return vectors


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize(
    ("name", "cuts"),
    [("llama", ()), ("llama", (3,)), ("llama", (1, 2, 5)), ("nanbeige", (2,)), ("qwen3", (1,))],
)
def test_vectors_are_pooled_from_what_mlx_lm_gives(
    name: str, cuts: tuple[int, ...], overlaps: bool
) -> None:
    hidden = unsharded(name, PROMPT)
    chain = Chain(new_executors(name, cuts), overlaps=overlaps)
    last = pooled(chain, Pooling.LAST, CHUNKS)
    sums = pooled(chain, Pooling.MEAN, CHUNKS)
    for index, chunk in enumerate(CHUNKS):
        end = index * CHUNK_TOKENS + len(chunk)
        np.testing.assert_allclose(last[index], hidden[end - 1], rtol=1e-4, atol=1e-4)
        part = hidden[end - len(chunk) : end].sum(axis=0)
        np.testing.assert_allclose(sums[index], part, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("cuts", [(), (3,)])
def test_in_one_chunk_it_is_the_same_to_the_last_bit(cuts: tuple[int, ...]) -> None:
    hidden = unsharded("llama", PROMPT)
    (vector,) = pooled(Chain(new_executors("llama", cuts)), Pooling.LAST, [PROMPT])
    assert vector.tolist() == hidden[-1].tolist()


@pytest.mark.parametrize("pooling", [None, *Pooling])
def test_a_chunk_leaves_the_same_cache_pooled_or_not(pooling: Pooling | None) -> None:
    chain, other = (Chain(new_executors("llama", (3,))) for _ in range(2))
    got = chain.answer(MicroBatch(0, PROMPT, pooling=pooling), NewCache(0))
    assert (got.vector is None) is (pooling is None)
    other.answer(MicroBatch(0, PROMPT), NewCache(0))
    step = decode(0, position=len(PROMPT) + 1)
    assert chain.answer(step).sampled == other.answer(step).sampled


def test_a_pooled_chunk_without_a_cache_is_an_error() -> None:
    result = Chain(new_executors("llama", (3,))).answer(MicroBatch(0, (1,), pooling=Pooling.LAST))
    assert result.vector is None
    assert result.error == "stage 0: no cache 0 on this stage"
