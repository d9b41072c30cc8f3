"""The unsharded model's own answer to a short probe, computed layer by layer.

The parity check compares the pipeline with it. No slicing takes part: the unmodified model runs,
each layer's weights are read when it is called and let go after, so that the largest layer is all
that is ever held, whatever the size of the model.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from tbcluster.errors import ParityError
from tbcluster.model.boundary import mutable_arguments
from tbcluster.model.caches import Cache, state_arrays
from tbcluster.model.device import Device
from tbcluster.model.hooks import call_layer, hooked
from tbcluster.model.loading import open_model
from tbcluster.model.quantized import fresh_caches
from tbcluster.model.tracer import trace
from tbcluster.wire.control import Reference

MAX_MARGIN = 1e9


def reference_continuation(
    path: Path,
    device: Device,
    prompt: list[int],
    num_tokens: int,
    kv_bits: int | None = None,
) -> Reference:
    """Continue `prompt` greedily by `num_tokens` tokens.

    Args:
        kv_bits: As the stages' caches, so that like is compared with like.

    Raises:
        ParityError: The unsharded model itself gives numbers that are not finite.
    """
    cache: list[Cache] | None = None
    tokens: list[int] = []
    logprobs: list[float] = []
    margins: list[float] = []
    steps = [prompt[:-1], prompt[-1:]] if len(prompt) > 1 else [prompt]
    while len(tokens) < num_tokens:
        model = open_model(path, device)
        cache = cache if cache is not None else fresh_caches(model, kv_bits)
        step = steps.pop(0) if steps else tokens[-1:]
        logits = _forward(model, step, cache)
        if steps:
            continue
        best = _best(logits)
        tokens.append(best[0])
        logprobs.append(best[1])
        margins.append(best[2])
    return Reference(tuple(tokens), tuple(logprobs), tuple(margins))


class _LetGo:
    """Evaluates each layer as it is called, then drops the weights that are its alone."""

    def __init__(self, layers: list[nn.Module], cache: list[Cache]) -> None:
        self._cache = cache
        self._uses = Counter(
            id(array) for layer in layers for _, array in tree_flatten(layer.parameters())
        )

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = call_layer(layer, args, kwargs)
        passed_on = [output, mutable_arguments(args, kwargs)]
        arrays = [leaf for _, leaf in tree_flatten(passed_on) if isinstance(leaf, mx.array)]
        mx.eval(arrays, [state_arrays(entry) for entry in self._cache])
        own = [(k, v) for k, v in tree_flatten(layer.parameters()) if self._uses[id(v)] == 1]
        layer.update(tree_unflatten([(k, mx.zeros(v.shape, v.dtype)) for k, v in own]))
        mx.clear_cache()
        return output


def _forward(model: nn.Module, tokens: list[int], cache: list[Cache]) -> mx.array:
    if trace(model).num_visits > 1:
        return _logits(model, tokens, cache)  # each layer is needed again in the same step
    layers = list(model.layers)
    with hooked(layers, _LetGo(layers, cache)):
        return _logits(model, tokens, cache)


def _logits(model: nn.Module, tokens: list[int], cache: list[Cache]) -> mx.array:
    output = model(mx.array([tokens], dtype=mx.int32), cache=cache)
    logits = output[0] if isinstance(output, tuple) else output
    mx.eval(logits, [state_arrays(entry) for entry in cache])
    last: mx.array = logits[0, -1]
    return last


def _best(logits: mx.array) -> tuple[int, float, float]:
    """The likeliest token, its logprob, and its lead over the runner-up."""
    logprobs = (logits - mx.logsumexp(logits)).astype(mx.float32)
    ranked = np.array(logprobs).argsort()
    first, second = (float(logprobs[int(i)]) for i in (ranked[-1], ranked[-2]))
    if not math.isfinite(first):
        raise ParityError("the model's own logits are not numbers: its weights are damaged")
    # A masked runner-up is infinitely far behind, which JSON cannot say.
    return int(ranked[-1]), first, min(first - second, MAX_MARGIN)
