"""Checkpoints of the largest open models as sparse files: true configs, headers and sizes, no data.

They take some megabytes of disk. Nothing can be computed with them, but whatever is read from
configs and headers alone can be tested at full size.
"""

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path

from tests.doubles.checkpoints import write_tokenizer

SHARD_BYTES = 5 * 10**9
TOKENIZER_VOCAB = 300
# As safetensors spells MLX's types.
DTYPES = {
    mx.uint32: "U32",
    mx.uint8: "U8",
    mx.float32: "F32",
    mx.bfloat16: "BF16",
    mx.float16: "F16",
}
ITEM_BYTES = {"U32": 4, "F32": 4, "BF16": 2, "F16": 2, "U8": 1, "F8_E4M3": 1}

DEEPSEEK_R1: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_shared_experts": 1,
    "n_routed_experts": 256,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "qk_nope_head_dim": 128,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "n_group": 8,
    "topk_group": 4,
    "num_experts_per_tok": 8,
    "moe_layer_freq": 1,
    "first_k_dense_replace": 3,
    "max_position_embeddings": 163840,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "attention_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
KIMI_K2: dict[str, Any] = DEEPSEEK_R1 | {
    "model_type": "kimi_k2",
    "vocab_size": 163840,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "n_routed_experts": 384,
    "routed_scaling_factor": 2.827,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 0,
    "max_position_embeddings": 131072,
    "rope_theta": 50000.0,
    "rope_scaling": DEEPSEEK_R1["rope_scaling"] | {"factor": 32.0},
}
FOUR_BITS = {"group_size": 64, "bits": 4, "mode": "affine"}


@dataclass(frozen=True)
class Tensor:
    """What a header says of a tensor; `dtype` in safetensors' words."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        size = ITEM_BYTES[self.dtype]
        for dimension in self.shape:
            size *= dimension
        return size


def write_quantized(path: Path, config: dict[str, Any] = DEEPSEEK_R1) -> Path:
    """A model in 4 bits as mlx-lm converts it, stacked experts and all, into `path`."""
    quantized = config | {"quantization": FOUR_BITS, "quantization_config": FOUR_BITS}
    _write(path, quantized, _quantized_tensors(config))
    return path


def write_fp8(path: Path, config: dict[str, Any] = DEEPSEEK_R1) -> Path:
    """A model in fp8 as DeepSeek gives it out: blocks of 128 x 128 with a scale each, every expert
    by itself, and a layer for predicting several tokens that mlx-lm leaves out."""
    fp8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    _write(path, config | {"quantization_config": fp8}, list(_fp8_tensors(config)))
    return path


def _quantized_tensors(config: dict[str, Any]) -> list[Tensor]:
    model = _build(config)
    # Its router's bias stays in float32.
    model.update(
        tree_map_with_path(
            lambda path, a: a.astype(mx.bfloat16) if model.cast_predicate(path) else a,
            model.parameters(),
        )
    )
    nn.quantize(
        model,
        group_size=FOUR_BITS["group_size"],
        bits=FOUR_BITS["bits"],
    )
    return _tensors(model)


def _build(config: dict[str, Any]) -> nn.Module:
    module = importlib.import_module("mlx_lm.models.deepseek_v3")
    return module.Model(module.ModelArgs.from_dict(config))


def _tensors(model: nn.Module) -> list[Tensor]:
    return [
        Tensor(name, DTYPES[array.dtype], tuple(array.shape))
        for name, array in tree_flatten(model.parameters())
    ]


def _fp8_tensors(config: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors of the checkpoint that `sanitize` makes the model's own of."""
    model = _build(config)
    for tensor in _tensors(model):
        *prefix, module, kind = tensor.name.split(".")
        name = ".".join([*prefix, module])
        if module == "embed_q":
            heads, rank, nope = tensor.shape
            rows = heads * (nope + config["v_head_dim"])
            yield from _fp8(".".join([*prefix, "kv_b_proj"]), rows, rank)
        elif module == "unembed_out":
            continue
        elif "switch_mlp" in prefix:
            experts, rows, columns = tensor.shape
            for expert in range(experts):
                owner = ".".join([*prefix[:-1], "experts", str(expert), module])
                yield from _fp8(owner, rows, columns)
        elif kind == "weight" and module.endswith(("_proj", "_proj_with_mqa")):
            yield from _fp8(name, *tensor.shape)
        else:
            yield Tensor(tensor.name, "BF16", tensor.shape)
    width, first = config["hidden_size"], config["num_hidden_layers"]
    for layer in range(first, first + config["num_nextn_predict_layers"]):
        yield Tensor(f"model.layers.{layer}.enorm.weight", "BF16", (width,))
        yield from _fp8(f"model.layers.{layer}.eh_proj", width, 2 * width)


def _fp8(name: str, rows: int, columns: int) -> list[Tensor]:
    blocks = (-(-rows // 128), -(-columns // 128))
    return [
        Tensor(f"{name}.weight", "F8_E4M3", (rows, columns)),
        Tensor(f"{name}.weight_scale_inv", "F32", blocks),
    ]


def _write(path: Path, config: dict[str, Any], tensors: list[Tensor]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    shards = list(_shards(tensors))
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_sparse(path / file, shard)
        weight_map |= {tensor.name: file for tensor in shard}
    total = sum(tensor.num_bytes for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (path / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    write_tokenizer(path, TOKENIZER_VOCAB, config["max_position_embeddings"])


def _shards(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    shard: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if shard and size + tensor.num_bytes > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.num_bytes
    yield shard


def write_sparse(file: Path, tensors: list[Tensor]) -> None:
    """A safetensors file of full size whose data is one hole."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.num_bytes
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with file.open("wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        out.truncate(out.tell() + offset)
