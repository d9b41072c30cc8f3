"""Small random checkpoints of any architecture, in mlx-lm's own form and in forms that its
`sanitize` turns into that."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from tests.doubles import architectures

FP8_BLOCK = 128


def write_architecture(path: Path, name: str, num_shards: int = 2) -> Path:
    """An architecture of `tests/doubles/architectures.py` as mlx-lm saves it."""
    tensors = architectures.random_parameters(architectures.build(name))
    return write_tensors(path, config_of(name), tensors, num_shards)


def config_of(name: str) -> dict[str, Any]:
    """The config of an architecture, which names it."""
    return architectures.CONFIGS[name] | {"model_type": name}


def write_tensors(
    path: Path, config: dict[str, Any], tensors: dict[str, mx.array], num_shards: int = 2
) -> Path:
    """A checkpoint of these tensors, neighbours in different files."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for number in range(num_shards):
        part = dict(list(tensors.items())[number::num_shards])
        mx.save_safetensors(str(path / f"model-{number}.safetensors"), part, {"format": "mlx"})
    return path


def write_quantized(path: Path, name: str) -> Path:
    """An architecture in 4 bits, as `mlx_lm.convert` writes it."""
    model = architectures.load(
        architectures.build(name), architectures.random_parameters(architectures.build(name))
    )
    quantization = {"group_size": 32, "bits": 4, "mode": "affine"}
    nn.quantize(
        model,
        group_size=32,
        bits=4,
        class_predicate=lambda _, m: hasattr(m, "to_quantized") and m.weight.shape[-1] % 32 == 0,
    )
    config = config_of(name) | {"quantization": quantization}
    return write_tensors(path, config, dict(tree_flatten(model.parameters())))


def write_mixtral(path: Path) -> Path:
    """Mixtral as Mistral gives it out: every expert by itself, under other names."""
    names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    tensors: dict[str, mx.array] = {}
    for key, array in _parameters("mixtral").items():
        before, _, after = key.partition(".switch_mlp.")
        if after:
            module = names[after.split(".")[0]]
            for expert in range(array.shape[0]):
                tensors[f"{before}.experts.{expert}.{module}.weight"] = array[expert]
        else:
            tensors[key] = array
    return write_tensors(path, config_of("mixtral"), tensors)


def write_deepseek_fp8(path: Path) -> Path:
    """DeepSeek-V3 as DeepSeek gives it out: fp8 in blocks with a scale each, single experts,
    and the two halves of latent attention in one matrix."""
    config = config_of("deepseek_v3")
    tensors: dict[str, mx.array] = {}
    for key, array in _parameters("deepseek_v3").items():
        owner = key.removesuffix(".weight")
        attention = owner.rpartition(".")[0]
        if owner.endswith("embed_q"):
            second = _parameters("deepseek_v3")[f"{attention}.unembed_out.weight"]
            both = mx.concatenate([array.swapaxes(-1, -2), second], axis=1)
            tensors |= _fp8(f"{attention}.kv_b_proj", both.reshape(-1, both.shape[-1]))
        elif ".switch_mlp." in key:
            before, _, module = owner.partition(".switch_mlp.")
            for expert in range(array.shape[0]):
                tensors |= _fp8(f"{before}.experts.{expert}.{module}", array[expert])
        elif owner.endswith("_proj"):
            tensors |= _fp8(owner, array)
        elif not owner.endswith("unembed_out"):
            tensors[key] = array
    return write_tensors(path, config, tensors)


def write_awq(path: Path) -> Path:
    """A llama in AutoAWQ's packing, which mlx-lm unpacks and packs anew."""
    config = config_of("llama") | {
        "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}
    }
    rng = np.random.default_rng(0)
    tensors: dict[str, mx.array] = {}
    for key, array in _parameters("llama").items():
        if not key.endswith("_proj.weight"):
            tensors[key] = array
            continue
        rows, columns = array.shape
        prefix = key.removesuffix(".weight")
        words = {"qweight": (columns, rows // 8), "qzeros": (columns // 32, rows // 8)}
        for kind, shape in words.items():
            bits = rng.integers(0, 2**32, shape, dtype=np.uint32)
            tensors[f"{prefix}.{kind}"] = mx.array(bits.view(np.int32))
        scales = rng.uniform(0.001, 0.002, (columns // 32, rows))
        tensors[f"{prefix}.scales"] = mx.array(scales.astype(np.float16))
    return write_tensors(path, config, tensors)


def write_bitnet(path: Path) -> Path:
    """Packed ternary weights, which a CPU needs packed otherwise."""
    return write_architecture(path, "bitnet")


def _parameters(name: str) -> dict[str, mx.array]:
    return architectures.random_parameters(architectures.build(name))


def _fp8(name: str, array: mx.array) -> dict[str, mx.array]:
    blocks = tuple(-(-size // FP8_BLOCK) for size in array.shape)
    scales = mx.random.uniform(0.5, 2, blocks, key=mx.random.key(len(name)))
    return {f"{name}.weight": mx.to_fp8(array), f"{name}.weight_scale_inv": scales}


def other_forms() -> Iterator[tuple[str, Any]]:
    """(name, writer) of each checkpoint that is not in mlx-lm's own form."""
    yield "mixtral with single experts", write_mixtral
    yield "deepseek in fp8", write_deepseek_fp8
    yield "llama in awq", write_awq
    yield "ternary bitnet", write_bitnet
    yield "mixtral in 4 bits", lambda path: write_quantized(path, "mixtral")
