"""Where a prompt is cut into chunks does not change what a model gives, for every architecture.

The scheduler cuts prompts where it suits it, except those of the architectures in `CHUNKS_MATTER`.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.model.rows import CHUNKS_MATTER
from tests.doubles import architectures
from tests.doubles.stages import evaluate
from tests.model.test_golden import NAMES, build, stand_in_kernels
from tests.model.test_golden_batch import TOLERANCE, TOLERANCES

# Windows are 8 tokens, or 4.
CHUNKS = ((15, 1), (7, 5, 3, 1))

__all__ = ["stand_in_kernels"]  # a fixture that every test here uses


@pytest.mark.parametrize("name", NAMES)
def test_chunks_matter_where_it_says_so_and_nowhere_else(name: str) -> None:
    model = build(name)
    architectures.load(model, architectures.random_parameters(model))
    top = 30 if name == "nanochat" else 90
    prompt = mx.array(np.random.default_rng(1).integers(0, top, (1, sum(CHUNKS[0]))))
    whole, cut = (last_logits(model, prompt, chunks) for chunks in CHUNKS)
    largest = difference(whole, cut)
    is_same = largest <= TOLERANCES.get(name, TOLERANCE)
    assert is_same is (name not in CHUNKS_MATTER), f"{name}: logits differ by up to {largest:.1e}"


def last_logits(model: nn.Module, prompt: mx.array, chunks: tuple[int, ...]) -> np.ndarray:
    cache = make_prompt_cache(model)
    for tokens in mx.split(prompt, np.cumsum(chunks)[:-1].tolist(), axis=1):
        output = model(tokens, cache=cache)
        logits = output[0] if isinstance(output, tuple) else output
        evaluate(logits, cache)
    return np.array(logits[0, -1].astype(mx.float32))


def difference(whole: np.ndarray, cut: np.ndarray) -> float:
    """The largest one, relative to the size of the logit; masked tokens have -inf in both."""
    assert not np.isnan(whole).any()
    is_finite = np.isfinite(whole)
    assert np.array_equal(whole[~is_finite], cut[~is_finite])
    whole, cut = whole[is_finite], cut[is_finite]
    return float(np.max(np.abs(whole - cut) / np.maximum(1, np.abs(whole))))
