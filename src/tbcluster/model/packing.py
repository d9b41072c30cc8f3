"""How the weights of a model that is not there would be packed: as its config says, or in as many
bits as somebody asks for. All lazily.

With weights at hand mlx-lm looks which of them have scales. Without, this follows what makes them:
`mlx_lm.convert`, or the tool that the config names.
"""

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import mlx.nn as nn
from mlx_lm.models.bitlinear_layers import BitLinear, bitnet_quantize
from mlx_lm.utils import _compressed_tensors_quantization

from tbcluster.errors import UnsupportedModelError

# What weights may be asked for in; the last is none at all: the type that the config names.
BITS = (2, 3, 4, 5, 6, 8, 16)
UNPACKED_BITS = 16
# Of `mlx_lm.convert`, unless told otherwise.
GROUP_SIZE = 64
MXFP4 = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
MXFP8 = {"group_size": 32, "bits": 8, "mode": "mxfp8"}
# mlx-lm unpacks no others of AutoAWQ and GPTQ.
AWQ_BITS = 4
# Where tools list what they left alone.
LISTS = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules")

Predicate = Callable[[str, nn.Module], bool | dict[str, Any]]


def pack_as_asked(model: nn.Module, bits: int) -> None:
    """Pack as `mlx_lm.convert --q-bits` does, routers as the model's class wants them.

    Args:
        bits: One of `BITS`.

    Raises:
        UnsupportedModelError: MLX has no such packing, or the weights are ternary already.
    """
    if bits not in BITS:
        allowed = ", ".join(map(str, BITS))
        raise UnsupportedModelError(f"weights of {bits} bits: MLX packs to one of {allowed}")
    if any(isinstance(module, BitLinear) for module in model.modules()):
        raise UnsupportedModelError(
            f"weights of {bits} bits: this model's are ternary, and were trained so: ask for no "
            "other"
        )
    if bits != UNPACKED_BITS:
        told = {"group_size": GROUP_SIZE, "bits": bits}
        nn.quantize(model, GROUP_SIZE, bits, class_predicate=_as_mlx_converts(model, told))


def pack_as_told(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Pack as mlx-lm does when it loads the checkpoint that this is the config of.

    Raises:
        UnsupportedModelError: mlx-lm reads no such weights.
        LookupError, ValueError: The config lacks what mlx-lm needs.
    """
    told = config.get("quantization")
    if told is not None:
        _pack(model, told, _as_mlx_converts(model, told))
        return
    made = quantization_config(config)
    if not made:
        return
    if made["quant_method"] == "bitnet":
        bitnet_quantize(model, made)
    elif (packing := _packing(made)) is not None:
        _pack(model, packing, _as_others_convert(made, packing["group_size"]))


def quantization_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What another tool than MLX's made of the weights; empty if none did."""
    for part in (config, config.get("text_config") or {}):
        if made := part.get("quantization_config"):
            return dict(made)
    return {}


def is_ternary(config: Mapping[str, Any]) -> bool:
    """Whether mlx-lm makes ternary layers of a model's linear ones."""
    return quantization_config(config).get("quant_method") == "bitnet"


def _pack(model: nn.Module, packing: Mapping[str, Any], predicate: Predicate) -> None:
    mode = packing.get("mode", "affine")
    nn.quantize(model, packing["group_size"], packing["bits"], mode=mode, class_predicate=predicate)


def _packing(made: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What mlx-lm's `load_model` makes of it; None where that unpacks the weights."""
    method = made["quant_method"]
    if method in ("mxfp4", "mxfp8"):
        return MXFP4 if method == "mxfp4" else MXFP8
    if method == "fp8":
        blocks = list(made.get("weight_block_size") or ())
        return MXFP8 if made.get("scale_fmt") == "ue8m0" and blocks == [32, 32] else None
    if method == "compressed-tensors":
        return dict(_compressed_tensors_quantization(dict(made)))
    if method == "modelopt":
        settings = made.get("quantization", made)
        if settings["quant_algo"] == "NVFP4":
            return {"group_size": settings.get("group_size", 16), "bits": 4, "mode": "nvfp4"}
        method = settings["quant_algo"]
    if method in ("awq", "gptq") and made.get("bits", AWQ_BITS) == AWQ_BITS:
        return {"group_size": made.get("group_size", 128), "bits": AWQ_BITS}
    raise UnsupportedModelError(
        f"weights by {method!r} in {made.get('bits', 'its')} bits: mlx-lm does not read them; plan "
        "with others (--bits)"
    )


def _as_mlx_converts(model: nn.Module, told: Mapping[str, Any]) -> Predicate:
    """See `mlx_lm.utils.quantize_model`. What the config says of a module wins."""
    own: Predicate | None = getattr(model, "quant_predicate", None)

    def predicate(path: str, module: nn.Module) -> bool | dict[str, Any]:
        if path in told:
            said = told[path]
            return dict(said) if isinstance(said, dict) else bool(said)
        if not _can_pack(module, told["group_size"]):
            return False
        return own(path, module) if own is not None else True

    return predicate


def _as_others_convert(made: Mapping[str, Any], group_size: int) -> Predicate:
    """Linear layers alone, without the head and what the config says was left as it was."""
    kept = [str(name) for key in LISTS for name in made.get(key) or ()]
    kept += [] if made.get("lm_head") else ["lm_head"]

    def predicate(path: str, module: nn.Module) -> bool:
        if isinstance(module, nn.Embedding) or not _can_pack(module, group_size):
            return False
        # Other tools see each expert by itself.
        name = path.replace("switch_mlp", "experts.0")
        return not any(_matches(name, pattern) for pattern in kept)

    return predicate


def _can_pack(module: nn.Module, group_size: int) -> bool:
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % group_size == 0


def _matches(name: str, pattern: str) -> bool:
    """Whether a list means this module, or one that it is in: "re:" and an expression, or names
    with `*` for any."""
    if pattern.startswith("re:"):
        return re.match(pattern.removeprefix("re:"), name) is not None
    return fnmatchcase(f".{name}.", f"*.{pattern}.*")
