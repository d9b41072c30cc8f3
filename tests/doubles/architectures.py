"""A tiny random model of every architecture that mlx-lm 0.32.2 knows."""

import importlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

CONFIGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "fixtures" / "architectures.json").read_text()
)

# Cannot be compared here, each with its reason.
EXCLUDED = {
    "olmo": "mlx-lm's own module needs the ai2-olmo package, and fails for prompts past one token",
}


def build(name: str) -> nn.Module:
    """The model with lazy zero parameters: nothing is allocated."""
    module = importlib.import_module(f"mlx_lm.models.{name}")
    model = module.Model(module.ModelArgs.from_dict(json.loads(json.dumps(CONFIGS[name]))))
    model.eval()
    model.update(tree_map(lambda p: mx.zeros(p.shape, p.dtype), model.parameters()))
    return model


def random_parameters(model: nn.Module, seed: int = 0) -> dict[str, mx.array]:
    """Parameters in float32 of a size that keeps activations finite through all layers."""
    rng = np.random.default_rng(seed)
    return {path: _random(path, array, rng) for path, array in tree_flatten(model.parameters())}


def load(model: nn.Module, parameters: dict[str, mx.array]) -> nn.Module:
    model.update(tree_unflatten(list(parameters.items())))
    mx.eval(model.parameters())
    return model


def _random(path: str, array: mx.array, rng: np.random.Generator) -> mx.array:
    shape = array.shape
    if array.dtype == mx.uint32:
        return mx.array(rng.integers(0, 2**32, shape, dtype=np.uint32))
    if array.dtype == mx.uint8:  # packed ternary weights
        digits = [rng.integers(0, 3, shape) << shift for shift in (0, 2, 4, 6)]
        return mx.array(sum(digits).astype(np.uint8))
    if not mx.issubdtype(array.dtype, mx.floating):
        return array
    if "A_log" in path:
        values = np.log(np.linspace(1, 8, array.size)).reshape(shape)
    elif "dt_bias" in path:
        values = np.zeros(shape)
    elif len(shape) >= 2:
        values = rng.standard_normal(shape) * (0.7 / np.sqrt(shape[-1]))
    else:
        values = 1 + 0.1 * rng.standard_normal(shape)
    if path.endswith((".scales", ".biases")):
        values = values * 0.01
    return mx.array(values.astype(np.float32))
