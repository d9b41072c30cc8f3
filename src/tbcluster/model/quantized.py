"""KV caches in 8 or 4 bits, with mlx-lm's own quantized cache, where the architecture allows it."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import CacheList, KVCache, QuantizedKVCache, make_prompt_cache

from tbcluster.core import KV_BITS
from tbcluster.errors import UnsupportedModelError
from tbcluster.model.caches import Cache
from tbcluster.model.placeholders import EvaluationNeededError, run_unevaluated

# How many neighbouring values share a scale and a bias, best first.
GROUP_SIZES = (64, 32)
# A prompt, then one token: the two go through different masks.
CHECKED_LENGTHS = (3, 1)


def fresh_caches(model: nn.Module, kv_bits: int | None = None) -> list[Cache]:
    """The model's own empty caches for one sequence, quantized if `kv_bits` says so."""
    caches = make_prompt_cache(model)
    return caches if kv_bits is None else quantize_caches(caches, kv_bits)


def quantize_caches(caches: list[Cache], bits: int) -> list[Cache]:
    """The same fresh caches, with a quantized one for each that is exactly mlx-lm's `KVCache`.

    Caches of sliding windows and recurrent layers stay as they are: they do not grow.
    """
    return [_quantized(cache, bits) for cache in caches]


def check_quantized(model: nn.Module, bits: int) -> None:
    """Make sure that a model, whose parameters may all be lazy, runs with quantized caches.

    Raises:
        UnsupportedModelError: It does not; in one sentence why.
    """
    if bits not in KV_BITS:
        raise UnsupportedModelError(f"a KV cache has 8 or 4 bits if it is quantized, not {bits}")
    plain = make_prompt_cache(model)
    if not any(_is_quantizable(cache) for cache in plain):
        raise UnsupportedModelError(
            "its KV cache cannot be quantized: no layer keeps the keys and values of all tokens"
        )
    caches = quantize_caches(plain, bits)
    try:
        run_unevaluated(model, [(caches, length) for length in CHECKED_LENGTHS])
    except EvaluationNeededError as error:
        raise UnsupportedModelError(
            "its KV cache cannot be quantized: its forward pass looks at values, so whether it "
            "allows that cannot be checked before it is loaded"
        ) from error
    # Whatever a forward pass stumbles over that expects arrays and is given triples of them.
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"its KV cache cannot be quantized: {_sentence(error)}"
        ) from error


class GroupedKVCache(QuantizedKVCache):  # type: ignore[misc]
    """Picks the size of its groups when it first sees keys and values: only then are the sizes of
    the heads known."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        """As mlx-lm's.

        Raises:
            UnsupportedModelError: The heads cannot be cut into groups.
        """
        if self.keys is None:
            self.group_size = _group_size(keys.shape[-1], values.shape[-1])
        return super().update_and_fetch(keys, values)


def _group_size(*head_sizes: int) -> int:
    for group_size in GROUP_SIZES:
        if all(size and size % group_size == 0 for size in head_sizes):
            return group_size
    sizes = " and ".join(str(size) for size in dict.fromkeys(head_sizes))
    raise UnsupportedModelError(
        f"its KV cache cannot be quantized: heads of {sizes} values are no multiple of 32"
    )


def _quantized(cache: Cache, bits: int) -> Cache:
    if isinstance(cache, CacheList):
        return CacheList(*quantize_caches(list(cache.caches), bits))
    return GroupedKVCache(bits=bits) if type(cache) is KVCache else cache


def _is_quantizable(cache: Cache) -> bool:
    if isinstance(cache, CacheList):
        return any(_is_quantizable(inner) for inner in cache.caches)
    return type(cache) is KVCache


def _sentence(error: Exception) -> str:
    if isinstance(error, ValueError) and "sinks" in str(error):
        return "its attention has sinks, which mlx-lm does not compute with quantized keys"
    return "its attention takes the cached keys and values for plain arrays"
