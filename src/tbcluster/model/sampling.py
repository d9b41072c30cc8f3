"""Picking the next token, on the last stage, with mlx-lm's samplers.

The random state of a token is a function of its request's seed and its position alone: requests do
not disturb one another, and a step that is computed again picks the same token.
"""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import make_sampler

from tbcluster.core import Sample, SampledToken, SamplingParams

# Below it the division by the temperature overflows, and one token has all the probability anyway.
MIN_TEMPERATURE = 1e-5

Number = TypeVar("Number", int, float)


def sample_token(logits: mx.array, sample: Sample) -> SampledToken:
    """Sample after the last position.

    Args:
        logits: (1, num_tokens, vocabulary).
    """
    last = logits[:, -1, :]
    logprobs = last - mx.logsumexp(last, axis=-1, keepdims=True)
    params = sample.params
    if params.temperature >= MIN_TEMPERATURE:
        mx.random.seed(_step_seed(params.seed, sample.position))
    token = _sampler(params, last.shape[-1])(logprobs)
    if params.num_logprobs is None:
        return SampledToken(_number(token, int))
    return _with_logprobs(token, logprobs, params.num_logprobs)


def _sampler(params: SamplingParams, vocabulary: int) -> Callable[[mx.array], mx.array]:
    # mlx-lm refuses a top_k that keeps the whole vocabulary.
    top_k = params.top_k if params.top_k < vocabulary else 0
    sampler: Callable[[mx.array], mx.array] = make_sampler(
        temp=params.temperature if params.temperature >= MIN_TEMPERATURE else 0.0,
        top_p=params.top_p,
        min_p=params.min_p,
        top_k=top_k,
    )
    return sampler


def _with_logprobs(token: mx.array, logprobs: mx.array, num_alternatives: int) -> SampledToken:
    chosen = logprobs[0, token]
    order = mx.argsort(-logprobs[0])[:num_alternatives]
    values = logprobs[0, order]
    mx.eval(token, chosen, order, values)
    pairs = zip(np.array(order).tolist(), np.array(values.astype(mx.float32)).tolist(), strict=True)
    return SampledToken(_number(token, int), _number(chosen, float), tuple(pairs))


def _number(array: mx.array, kind: type[Number]) -> Number:
    value: Any = array.item()
    return kind(value)


def _step_seed(seed: int, position: int) -> int:
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
