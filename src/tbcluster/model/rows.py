"""Sequences as rows of a lane: joining, leaving and copying KV caches, with mlx-lm's own classes.

A cache here is a list with one entry per layer cache. A lane of one row is a plain cache of one
sequence; a lane of more rows holds their batched classes. Only `trim_cache` changes its argument.
What the others return is on its way to be computed: once a caller lets go of the arguments, their
memory is free.
"""

import copy
from collections.abc import Iterable, Sequence

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import (
    ArraysCache,
    BatchKVCache,
    BatchRotatingKVCache,
    CacheList,
    ChunkedKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
    make_prompt_cache,
)

from tbcluster.errors import StageError
from tbcluster.model.caches import Cache, leaves, state_arrays

# Architectures whose caches batch, but whose own code is not exact for rows of different lengths.
RUNS_ALONE = {
    "afm7": "the layers that reuse keys place all rows' queries where the longest row ends",
    "gpt_bigcode": "it looks up one position for all rows",
    "longcat_flash_ngram": "rows that saw fewer tokens than an n-gram spans cannot join others",
    "minimax_m3_vl": "its sparse attention counts blocks from where the padded rows begin",
    "phi3small": "its block-sparse attention takes no mask that differs between rows",
    "recurrent_gemma": "a row that saw no token yet starts with zeros, which its gates tell apart",
}

# Architectures whose output depends on where a prompt is cut into chunks.
CHUNKS_MATTER = {
    "phi3small": "its block-sparse layers add a boolean mask, so tokens see later ones of a chunk",
    "plamo3": "the mask of its sliding windows is one wider in a chunk than its cache is later",
}


def num_rows(lane: list[Cache]) -> int:
    """How many sequences a cache or lane holds."""
    return max((_entry_rows(entry) for entry in leaves(lane)), default=1)


def merge_rows(singles: Sequence[list[Cache]]) -> list[Cache]:
    """The lane whose rows are these caches of one sequence each."""
    if len(singles) == 1:
        return singles[0]
    return _settled(_merge(entries) for entries in zip(*singles, strict=True))


def extend_rows(lane: list[Cache], singles: Sequence[list[Cache]]) -> list[Cache]:
    """The lane with these caches of one sequence each as its last rows."""
    if num_rows(lane) == 1:
        return merge_rows([lane, *singles])
    longer = copy.deepcopy(lane)
    for entry, *entries in zip(longer, *singles, strict=True):
        entry.extend(_merge(entries))
    return _settled(longer)


def keep_rows(lane: list[Cache], rows: Sequence[int]) -> list[Cache]:
    """The lane with these rows only, in this order.

    Raises:
        StageError: The lane has no such row, or none is kept.
    """
    count = num_rows(lane)
    if not rows or not all(0 <= row < count for row in rows):
        raise StageError(f"no rows {tuple(rows)} in a lane of {count}")
    if count == 1:
        return merge_rows([lane] * len(rows))
    # Rows are gathered first: what mlx-lm's `extract` returns may be a view of the whole lane.
    kept = _settled(_filtered(entry, mx.array(list(rows))) for entry in copy.deepcopy(lane))
    return kept if len(rows) > 1 else _settled(_extract(entry) for entry in kept)


def take_row(lane: list[Cache], row: int) -> list[Cache]:
    """One row as a cache of one sequence; the lane stays as it is.

    Raises:
        StageError: The lane has no such row.
    """
    return copy_cache(keep_rows(lane, (row,)))


def copy_cache(cache: list[Cache]) -> list[Cache]:
    """An equal cache that shares memory until one of the two is written to."""
    return copy.deepcopy(cache)


def trim_cache(cache: list[Cache], num_tokens: int) -> None:
    """Take the newest tokens back out of a cache of one sequence.

    Raises:
        StageError: It cannot give them up exactly; it is unchanged then.
    """
    if num_tokens == 0:
        return
    if num_tokens < 0:
        raise StageError(f"cannot take {num_tokens} tokens back out of a cache")
    for entry in leaves(cache):
        if not _can_trim(entry, num_tokens):
            kind = type(entry).__name__
            raise StageError(f"cannot take {num_tokens} tokens back out of a {kind}")
    for entry in leaves(cache):
        entry.trim(num_tokens)


def can_batch(model: nn.Module) -> bool:
    """Whether sequences of different lengths can decode together and give what each gives alone."""
    entries = leaves(make_prompt_cache(model))
    return _architecture(model) not in RUNS_ALONE and all(map(_is_batchable, entries))


def chunks_matter(model: nn.Module) -> bool:
    """Whether prompts must be cut as mlx-lm cuts them to give what mlx-lm gives."""
    return _architecture(model) in CHUNKS_MATTER


def max_trimmable_tokens(model: nn.Module) -> int | None:
    """Caches of fewer tokens than this can give up their newest ones exactly; None for no limit."""
    limits = [_trim_limit(entry) for entry in leaves(make_prompt_cache(model))]
    return min((limit for limit in limits if limit is not None), default=None)


def _entry_rows(entry: Cache) -> int:
    if isinstance(entry, ArraysCache):
        return int(entry.batch_size)
    padding = getattr(entry, "left_padding", None)  # the batched classes have one for each row
    return 1 if padding is None else int(padding.size)


def _settled(entries: Iterable[Cache]) -> list[Cache]:
    """Have the entries computed: a graph left to later would keep the old arrays alive."""
    cache = list(entries)
    mx.async_eval([state_arrays(entry) for entry in cache])  # type: ignore[no-untyped-call]
    return cache


def _merge(entries: Sequence[Cache]) -> Cache:
    return entries[0].merge(list(entries))


def _filtered(entry: Cache, rows: mx.array) -> Cache:
    entry.filter(rows)
    return entry


def _extract(entry: Cache) -> Cache:
    """The only row of a batched entry. mlx-lm's `extract` fails for one that saw no token yet."""
    match entry:
        case CacheList():
            return CacheList(*map(_extract, entry.caches))
        case ArraysCache():
            single = ArraysCache(len(entry.cache))
            single.cache = list(entry.cache)
            return single
        case BatchKVCache(keys=None):
            return KVCache()
        case BatchRotatingKVCache(keys=None):
            return RotatingKVCache(entry.max_size)
        case _:
            return entry.extract(0)


def _architecture(model: nn.Module) -> str:
    return type(model).__module__.rpartition(".")[2]


def _can_trim(entry: Cache, num_tokens: int) -> bool:
    match entry:
        case KVCache() | QuantizedKVCache():
            return bool(num_tokens <= entry.offset)
        case RotatingKVCache():
            return bool(num_tokens <= entry.offset < entry.max_size)
        case ChunkedKVCache():  # past its front, what an earlier token saw is gone
            return bool(num_tokens <= entry.offset and entry.start_position == 0)
        case _:
            return False


def _trim_limit(entry: Cache) -> int | None:
    match entry:
        case KVCache() | QuantizedKVCache():
            return None
        case RotatingKVCache():
            return int(entry.max_size)
        case ChunkedKVCache():
            return int(entry.chunk_size)
        case _:
            return 0


def _is_batchable(entry: Cache) -> bool:
    """Batching forgets which first tokens a `RotatingKVCache` is told to keep."""
    if isinstance(entry, RotatingKVCache):
        return bool(entry.keep == 0)
    return isinstance(entry, (KVCache, ArraysCache))
