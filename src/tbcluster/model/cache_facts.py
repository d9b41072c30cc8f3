"""What a model's KV caches take, read off its own caches after a run that computes nothing.

The model's forward pass is built as graph only (`placeholders`): its caches then have the shapes
and types that a real run gives them. Sizes of heads, latents and states are measured, not derived
from a config; only which axis of a cache counts tokens is known of mlx-lm's classes.
"""

from collections.abc import Sequence

import mlx.nn as nn
from mlx_lm.models.cache import ArraysCache, ChunkedKVCache, RotatingKVCache

from tbcluster.core import MAX_CHUNK_TOKENS, CacheCost, CacheFacts, StageRange
from tbcluster.model.caches import Cache, leaves, signature, state_arrays
from tbcluster.model.placeholders import EvaluationNeededError, run_unevaluated
from tbcluster.model.quantized import fresh_caches
from tbcluster.model.rows import can_batch, chunks_matter, max_trimmable_tokens
from tbcluster.model.trace import ModelTrace

# Fills what holds the last few tokens; one token alone would go the way of a decode step, where
# windows grow in blocks.
PROMPT = 8
# Two prompts a block of mlx-lm's caches apart, and past most windows.
LONG_PROMPTS = (258, 514)


def cache_facts(
    model: nn.Module,
    traced: ModelTrace,
    ranges: Sequence[StageRange],
    kv_bits: int | None = None,
) -> CacheFacts:
    """What the coordinator must know of the KV caches of a model cut into these stages.

    Args:
        model: Its parameters may all be lazy.
        kv_bits: 8 or 4 for quantized KV caches, None for plain ones.
    """
    return CacheFacts(
        costs=stage_cache_costs(model, traced, ranges, kv_bits),
        # mlx-lm has no batched form of its quantized cache.
        can_batch=kv_bits is None and can_batch(model),
        max_trimmable_tokens=max_trimmable_tokens(model),
        fixed_chunks=chunks_matter(model),
    )


def stage_cache_costs(
    model: nn.Module,
    traced: ModelTrace,
    ranges: Sequence[StageRange],
    kv_bits: int | None = None,
) -> tuple[tuple[CacheCost, ...], ...]:
    """For each stage the cost of each cache that it keeps for its layers.

    Of a model that cannot be run without computing values, a cache that the run did not reach costs
    as much as another of its kind.
    """
    costs = _costs(model, kv_bits)
    return tuple(
        tuple(cost for cache in sorted(_kept(traced, stage)) for cost in costs[cache])
        for stage in ranges
    )


def layer_cache_costs(
    model: nn.Module, traced: ModelTrace, kv_bits: int | None = None
) -> tuple[tuple[tuple[CacheCost, ...], ...], tuple[CacheCost, ...]]:
    """For each layer the costs of the caches that it is given, and those of the caches that every
    stage keeps. One that several layers are given is the first one's: no cut parts them."""
    costs = _costs(model, kv_bits)
    owner: dict[int, int] = {}
    for call in sorted(traced.calls, key=lambda call: call.layer):
        for cache in call.caches:
            owner.setdefault(cache, call.layer)
    layers = tuple(
        tuple(cost for cache in sorted(owner) if owner[cache] == layer for cost in costs[cache])
        for layer in range(traced.num_layers)
    )
    return layers, tuple(cost for cache in sorted(traced.loose) for cost in costs[cache])


def _kept(traced: ModelTrace, stage: StageRange) -> frozenset[int]:
    calls = [call for call in traced.calls if stage.start <= call.layer < stage.end]
    return traced.loose.union(*(call.caches for call in calls))


def _costs(model: nn.Module, kv_bits: int | None) -> list[list[CacheCost]]:
    """Of each cache in the model's list the costs of its parts; none for one that stays empty."""
    kinds = [signature(cache) for cache in fresh_caches(model, kv_bits)]
    caches, is_complete = _after_prompt(model, kv_bits, PROMPT)
    if all(_is_known(part) for cache in caches for part in leaves([cache])):
        costs = [[_cost(part) for part in leaves([cache]) if _num_bytes(part)] for cache in caches]
    else:
        runs = [_after_prompt(model, kv_bits, length)[0] for length in LONG_PROMPTS]
        costs = [[_cost_by_growth(*pair)] for pair in zip(*runs, strict=True)]
    if not is_complete:
        by_kind = {kind: cost for kind, cost in zip(kinds, costs, strict=True) if cost}
        costs = [by_kind.get(kind, []) for kind in kinds]
    return costs


def _after_prompt(
    model: nn.Module, kv_bits: int | None, num_tokens: int
) -> tuple[list[Cache], bool]:
    """Caches as a prompt leaves them, and whether the run reached its end."""
    caches = fresh_caches(model, kv_bits)
    try:
        run_unevaluated(model, [(caches, num_tokens)])
    except EvaluationNeededError:
        return caches, False
    return caches, True


def _is_known(cache: Cache) -> bool:
    return isinstance(cache, ArraysCache) or hasattr(cache, "keys")


def _cost(cache: Cache) -> CacheCost:
    num_bytes = _num_bytes(cache)
    if isinstance(cache, ArraysCache):
        return CacheCost(num_bytes, 0)
    keys = cache.keys[0] if isinstance(cache.keys, tuple) else cache.keys
    return CacheCost(0, num_bytes // keys.shape[-2], _window(cache))


def _cost_by_growth(shorter: Cache, longer: Cache) -> CacheCost:
    """For a class of the model's own: growth between two prompts, the rest is fixed."""
    first, then = LONG_PROMPTS
    growth = _num_bytes(longer) - _num_bytes(shorter)
    bytes_per_token = -(-growth // (then - first))
    return CacheCost(max(0, _num_bytes(shorter) - bytes_per_token * first), bytes_per_token)


def _window(cache: Cache) -> int | None:
    if isinstance(cache, RotatingKVCache):
        # Until the next decode step it holds a prompt's last chunk besides.
        return int(cache.max_size) + MAX_CHUNK_TOKENS - 1
    if isinstance(cache, ChunkedKVCache):
        return int(cache.chunk_size) + MAX_CHUNK_TOKENS + int(cache.step)
    return None


def _num_bytes(cache: Cache) -> int:
    return sum(int(array.nbytes) for array in state_arrays(cache))
