"""A model made of its config alone, as if all of its weights were there.

Its parameters have the shapes and types that loading would give them and are never computed, so a
trillion of them take no memory.
"""

from copy import deepcopy
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_map_with_path
from mlx_lm.utils import _decode_tagged_floats, _get_classes

from tbcluster.model.device import Device
from tbcluster.model.loading import for_device, model_errors
from tbcluster.model.packing import is_ternary, pack_as_asked, pack_as_told
from tbcluster.model.source import ModelFolder
from tbcluster.model.sources import LazyModel

# What checkpoints are given out in; MLX computes in no others.
DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}

# These are tied unless their config says otherwise.
TIED_BY_WEIGHTS = ("gemma3_text", "recurrent_gemma")
TIES = ("tie_word_embeddings",)


def open_config(folder: ModelFolder, device: Device, bits: int | None = None) -> LazyModel:
    """The model of a config, without tensors.

    Args:
        bits: Of its weights, see `packing.BITS`; None for what the config says. Weights in fp8 are
            then in bfloat16, as mlx-lm loads them.

    Raises:
        UnsupportedModelError: mlx-lm does not know the architecture, or no weights of that kind.
        CorruptModelError: The config lacks what the architecture needs.
    """
    with model_errors(folder.path):
        config = _decode_tagged_floats(deepcopy(folder.config))
        model = _built(config)
        _tie(model, config)
        _set_type(model, _dtype(config))
        if bits is None or is_ternary(config):
            pack_as_told(model, config)
        if bits is not None:
            pack_as_asked(model, bits)
        # Without what they were drawn and packed from.
        model.update(tree_map(lambda array: mx.zeros(array.shape, array.dtype), model.parameters()))
        model.eval()
    return for_device(LazyModel(model, {}, dict(tree_flatten(model.parameters()))), device)


def _built(config: dict[str, Any]) -> nn.Module:
    model_class, arguments_class = _get_classes(config)
    model: nn.Module = model_class(arguments_class.from_dict(config))
    return model


def _tie(model: nn.Module, config: dict[str, Any]) -> None:
    """Let go of a head that is the embedding, where a model's class looks for it among its weights;
    the others look at the config."""
    for module in model.modules():
        kind = getattr(module, "model_type", None)
        if kind in TIED_BY_WEIGHTS and "lm_head" in module and _said(config, TIES, default=True):
            module.sanitize({})


def _said(config: dict[str, Any], keys: tuple[str, ...], default: Any = None) -> Any:
    """The first of these keys that the config has, in itself or in its text_config."""
    parts = (config, config.get("text_config") or {})
    return next((part[key] for part in parts for key in keys if part.get(key) is not None), default)


def _dtype(config: dict[str, Any]) -> mx.Dtype:
    """As the config names it; most checkpoints whose config does not are in bfloat16."""
    return DTYPES.get(_said(config, ("torch_dtype", "dtype")), mx.bfloat16)


def _set_type(model: nn.Module, dtype: mx.Dtype) -> None:
    """As `mlx_lm.convert` does: all but what the model's class wants left in its own type."""
    wanted = getattr(model, "cast_predicate", lambda _: True)

    def cast(path: str, array: mx.array) -> mx.array:
        is_cast = mx.issubdtype(array.dtype, mx.floating) and wanted(path)
        return array.astype(dtype) if is_cast else array

    model.update(tree_map_with_path(cast, model.parameters()))
