"""Picking the next token of each row, on the last stage, with mlx-lm's filters.

The random state of a token is a function of its request's seed and its position alone: requests do
not disturb one another, whatever rows they share a lane with, and a step that is computed again
picks the same token.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from tbcluster.core import Sample, SampledToken, SamplingParams
from tbcluster.model.logit_rules import RowRules, apply_rules

# Below it the division by the temperature overflows, and one token has all the probability anyway.
MIN_TEMPERATURE = 1e-5

# Making one takes most of the time that reading a greedy row takes, and they are immutable.
_plain_token = lru_cache(maxsize=2**14)(SampledToken)


@dataclass(frozen=True, slots=True)
class PendingSamples:
    """Tokens that are being sampled: evaluate `arrays`, then read `result`.

    Attributes:
        tokens: (num_rows,), grouped by how they are sampled.
        order: Which row each of the tokens belongs to.
        failed: Row -> why it alone could not be sampled.
    """

    tokens: mx.array
    order: tuple[int, ...]
    logprobs: "_PendingLogprobs | None"
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def arrays(self) -> list[mx.array]:
        """Everything that `result` reads."""
        return [self.tokens, *(self.logprobs.arrays if self.logprobs else ())]

    def result(self) -> tuple[SampledToken, ...]:
        """The token of each row; waits once for what is not computed yet."""
        mx.eval(self.arrays)
        grouped = np.array(self.tokens)
        by_row = np.empty_like(grouped)
        by_row[list(self.order)] = grouped
        tokens = by_row.tolist()
        if self.logprobs is None and not self.failed:
            return tuple(map(_plain_token, tokens))
        known = self.logprobs.result(tokens) if self.logprobs is not None else {}
        known |= {row: SampledToken(tokens[row], error=why) for row, why in self.failed.items()}
        return tuple(known.get(row) or _plain_token(token) for row, token in enumerate(tokens))


def sample_tokens(
    logits: mx.array, samples: Sequence[Sample], rules: Sequence[RowRules | None] = ()
) -> PendingSamples:
    """Build the graph that samples after the last position of each row; nothing is computed yet.

    Args:
        logits: (num_rows, num_tokens, vocabulary).
        samples: One for each row, at least one.
        rules: Nothing, or one for each row. They come before temperature and filters, and are not
            in the logprobs, which are the model's own. Masks of grammars are waited for.
    """
    if logits.shape[0] != len(samples):
        raise ValueError(f"{len(samples)} samples for {logits.shape[0]} rows of logits")
    last = logits[:, -1]
    ruled, failed = apply_rules(last, rules)
    groups: dict[_Filters | None, list[int]] = {}
    for row, sample in enumerate(samples):
        groups.setdefault(_filters(sample.params, last.shape[-1]), []).append(row)
    tokens = mx.concatenate(
        [
            _draw(_take(ruled, rows), filters, [samples[row] for row in rows])
            for filters, rows in groups.items()
        ]
    )
    order = tuple(row for rows in groups.values() for row in rows)
    return PendingSamples(tokens, order, _pending_logprobs(last, tokens, order, samples), failed)


@dataclass(frozen=True, slots=True)
class _Filters:
    """Rows with equal filters go through them together."""

    top_p: float
    min_p: float
    top_k: int


def _filters(params: SamplingParams, vocabulary: int) -> _Filters | None:
    """None for a greedy row."""
    if params.temperature < MIN_TEMPERATURE:
        return None
    # mlx-lm refuses a top_k that keeps the whole vocabulary.
    return _Filters(params.top_p, params.min_p, params.top_k if params.top_k < vocabulary else 0)


def _take(last: mx.array, rows: list[int]) -> mx.array:
    """Some rows, without a copy where it is all of them."""
    return last if len(rows) == last.shape[0] else last[mx.array(rows)]


def _draw(logits: mx.array, filters: _Filters | None, samples: list[Sample]) -> mx.array:
    """One token for each row (num_rows, vocabulary) of a group."""
    if filters is None:
        return mx.argmax(logits, axis=-1)
    temperatures = mx.array([[sample.params.temperature] for sample in samples])
    scaled = _filtered(logits.astype(mx.float32), filters) / temperatures
    draw = mx.vmap(lambda row, key: mx.random.categorical(row, key=key))
    drawn: mx.array = draw(scaled, _step_keys(samples))
    return drawn


def _filtered(logits: mx.array, filters: _Filters) -> mx.array:
    """Dropped tokens become -inf; in the order of mlx-lm's `make_sampler`."""
    if 0 < filters.top_p < 1:
        # The only filter that needs probabilities; over a lane the sum is worth sparing the others.
        logits = apply_top_p(logits - mx.logsumexp(logits, axis=-1, keepdims=True), filters.top_p)
    if filters.min_p != 0:
        logits = apply_min_p(logits, filters.min_p)
    if filters.top_k > 0:
        logits = apply_top_k(logits, filters.top_k)
    return logits


def _step_keys(samples: list[Sample]) -> mx.array:
    """A random key for each row: (num_rows, 2), uint32."""
    digests = b"".join(_digest(sample.params.seed, sample.position) for sample in samples)
    return mx.array(np.frombuffer(digests, "<u4").reshape(-1, 2))


def _digest(seed: int, position: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class _PendingLogprobs:
    """Logprobs of the unfiltered distribution, for the rows that ask.

    Attributes:
        wanted: Row -> how many alternatives it asks for.
        arrays: For each of these rows the picked token's logprob (num_rows,), and its likeliest
            tokens with their logprobs (num_rows, most wanted), in no order.
    """

    wanted: dict[int, int]
    arrays: tuple[mx.array, mx.array, mx.array]

    def result(self, tokens: list[int]) -> dict[int, SampledToken]:
        """Row -> its token of these, with logprobs."""
        chosen, likeliest, values = (np.array(array).tolist() for array in self.arrays)
        found = {}
        for i, (row, num_wanted) in enumerate(self.wanted.items()):
            pairs = dict(zip(likeliest[i], values[i], strict=True))
            # It competes too: among equals `likeliest` may hold others.
            pairs[tokens[row]] = chosen[i]
            top = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
            found[row] = SampledToken(tokens[row], chosen[i], tuple(top[:num_wanted]))
        return found


def _pending_logprobs(
    last: mx.array, tokens: mx.array, order: tuple[int, ...], samples: Sequence[Sample]
) -> _PendingLogprobs | None:
    asked = [sample.params.num_logprobs for sample in samples]
    wanted = {row: num for row, num in enumerate(asked) if num is not None}
    if not wanted:
        return None
    logits = _take(last, list(wanted)).astype(mx.float32)
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    place = {row: i for i, row in enumerate(order)}
    picked = tokens[mx.array([place[row] for row in wanted])]
    chosen = mx.take_along_axis(logprobs, picked[:, None], axis=-1)[:, 0]
    most = min(max(wanted.values()), logits.shape[-1])
    likeliest = mx.argpartition(-logprobs, kth=max(most - 1, 0), axis=-1)[:, :most]
    values = mx.take_along_axis(logprobs, likeliest, axis=-1)
    return _PendingLogprobs(wanted, (chosen, likeliest, values))
