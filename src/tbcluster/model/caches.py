"""KV caches of a stage: which of the model's caches it keeps, and what stands in for the others.

A model is handed a full-length list of caches and may read masks or offsets from an entry whose
layer is on another stage. Such an entry is an alias of an owned cache of the same kind, or else a
"ghost": a one-element cache of that class, advanced after each step by the class's own bookkeeping.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache, CacheList

Cache = Any  # one of mlx-lm's cache classes, which share no base
Signature = tuple[Any, ...]


def signature(cache: Cache) -> Signature:
    """Two fresh caches with equal signatures behave alike."""
    if isinstance(cache, CacheList):
        return ("CacheList", *(signature(inner) for inner in cache.caches))
    if isinstance(cache, ArraysCache):
        return (type(cache).__name__, len(cache.cache))
    settings = sorted(
        (name, value)
        for name, value in vars(cache).items()
        if isinstance(value, (bool, int, float, str))
    )
    return (type(cache).__name__, *settings)


def advance_ghost(cache: Cache, num_sequences: int, num_tokens: int) -> None:
    """Do the bookkeeping of one step on a cache that holds no layer's data."""
    if isinstance(cache, CacheList):
        for inner in cache.caches:
            advance_ghost(inner, num_sequences, num_tokens)
    elif isinstance(cache, ArraysCache):
        for index, entry in enumerate(cache.cache):
            if entry is None:
                cache.cache[index] = mx.zeros((num_sequences, 1), mx.bool_)
        cache.advance(num_tokens)
    elif hasattr(cache, "update_and_fetch"):
        nothing = mx.zeros((num_sequences, 1, num_tokens, 1), mx.bool_)
        cache.update_and_fetch(nothing, nothing)
    elif hasattr(cache, "offset"):
        cache.offset += num_tokens


def leaves(cache: Iterable[Cache]) -> Iterator[Cache]:
    """The entries of a cache, with those of a `CacheList` in its place."""
    for entry in cache:
        if isinstance(entry, CacheList):
            yield from leaves(entry.caches)
        else:
            yield entry


def state_arrays(cache: Cache) -> list[mx.array]:
    """Every array the cache holds now."""
    state = cache.state if cache is not None else None
    if state is None:
        return []
    return [leaf for _, leaf in tree_flatten(state) if isinstance(leaf, mx.array)]
