"""Models of their config alone are what their files would make of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import quantize_model

from tbcluster.errors import CorruptModelError, UnsupportedModelError
from tbcluster.model.config_model import open_config
from tbcluster.model.device import Device
from tbcluster.model.facts import InspectedModel
from tbcluster.model.packing import BITS
from tbcluster.model.profiling import profile_of
from tbcluster.model.source import ModelFolder, check_config, check_folder
from tbcluster.planner.profile import ModelProfile
from tests.doubles import architectures, giants, small_checkpoints
from tests.doubles.checkpoints import LlamaSizes, write_llama

CPU = Device("CPU", mx.float32)
AS_STORED = Device("any", None)
# Whose class packs by a list in the config; the toy's names but a few of its layers.
OWN_PACKING = "prism_hadamard_qwen35"
NAMES = sorted(architectures.CONFIGS.keys() - architectures.EXCLUDED - {OWN_PACKING})
# Heads that these look for in the files.
UNTIED = {"gemma3", "gemma3_text", "recurrent_gemma"}


def both(path: Path, device: Device = CPU) -> tuple[ModelProfile, ModelProfile]:
    """From the files, and from the config alone, but for the size of the files: those have
    headers, and may be packed otherwise than they are computed with."""
    folder = check_folder(path)
    files = profile_of(InspectedModel(folder, device), path.name)
    return files, replace(of_config(folder, device), file_bytes=files.file_bytes)


def of_config(folder: ModelFolder, device: Device = CPU, bits: int | None = None) -> ModelProfile:
    opened = open_config(folder, device, bits)
    return profile_of(InspectedModel(folder, device, opened), folder.path.name)


def folder_of(config: dict[str, Any]) -> ModelFolder:
    return ModelFolder(Path("toy"), config, {})


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture(tmp_path: Path, name: str) -> None:
    small_checkpoints.write_architecture(tmp_path, name)
    if name in UNTIED:
        config = json.loads((tmp_path / "config.json").read_text())
        said = json.dumps(config | {"tie_word_embeddings": False})
        (tmp_path / "config.json").write_text(said)
    files, alone = both(tmp_path)
    assert alone == files
    growing = [layer for layer in files.layers if any(c.bytes_per_token for c in layer.caches)]
    assert all(layer.attention.decode_flops > 0 for layer in growing)


FORMS = list(small_checkpoints.other_forms())


@pytest.mark.parametrize(("write"), [write for _, write in FORMS], ids=[name for name, _ in FORMS])
def test_other_forms_of_checkpoints(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    files, alone = both(write(tmp_path))
    assert alone == files


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_in_the_type_of_the_checkpoint(tmp_path: Path, dtype: str) -> None:
    write_llama(tmp_path, LlamaSizes(num_hidden_layers=2), dtype=dtype)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("torch_dtype", "dtype"):
        config = {k: v for k, v in config.items() if k not in ("torch_dtype", "dtype")}
        (tmp_path / "config.json").write_text(json.dumps(config | {key: dtype}))
        files, alone = both(tmp_path, AS_STORED)
        assert alone == files
        assert alone.weight_kind == dtype


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "gpt_oss", "deepseek_v3"])
@pytest.mark.parametrize("bits", [3, 8])
def test_as_mlx_lm_would_convert_it(tmp_path: Path, name: str, bits: int) -> None:
    config = small_checkpoints.config_of(name) | {"hidden_size": 128, "torch_dtype": "float32"}
    model = architectures.build(name)
    model, converted = quantize_model(model, config, 64, bits)
    tensors = dict(tree_flatten(model.parameters()))
    small_checkpoints.write_tensors(tmp_path, converted, tensors)
    files, alone = both(tmp_path)
    assert alone == files
    asked = of_config(folder_of(config), CPU, bits)
    assert replace(asked, name=files.name, file_bytes=files.file_bytes) == files


def test_a_giant_takes_no_memory(tmp_path: Path) -> None:
    mx.reset_peak_memory()
    active = mx.get_active_memory()
    alone = of_config(folder_of(giants.KIMI_K2), AS_STORED, 4)
    assert mx.get_peak_memory() - active < 10**7
    giant = giants.write_quantized(tmp_path / "toy", giants.KIMI_K2)
    files = profile_of(InspectedModel(check_folder(giant), AS_STORED), "toy")
    assert alone.file_bytes == pytest.approx(files.file_bytes, rel=1e-4)
    assert replace(alone, file_bytes=0) == replace(files, file_bytes=0)


def test_fewer_bits_are_fewer_bytes_of_the_same_model() -> None:
    config = giants.DEEPSEEK_R1 | {"num_hidden_layers": 5}
    found = [of_config(folder_of(config), AS_STORED, bits) for bits in BITS]
    assert [profile.weight_bytes for profile in found] == sorted(p.weight_bytes for p in found)
    assert len({profile.weight_bytes for profile in found}) == len(BITS)
    assert len({(profile.num_parameters, profile.active_parameters) for profile in found}) == 1
    assert [profile.weight_kind for profile in found[:2]] == ["2-bit/64", "3-bit/64"]
    fp8 = config | {"quantization_config": {"quant_method": "fp8"}}
    assert of_config(folder_of(fp8), AS_STORED) == found[-1]


MOE = small_checkpoints.config_of("qwen3_moe")


def test_bits_win_over_those_of_the_checkpoint() -> None:
    folder = folder_of(MOE | {"quantization": {"group_size": 32, "bits": 4}})
    assert of_config(folder).weight_kind == "4-bit/32"
    assert of_config(folder, bits=8).weight_kind == "8-bit/64"
    assert of_config(folder, bits=16).weight_kind == "float32"


def packed_modules(config: dict[str, Any]) -> set[str]:
    """Last names of what is packed."""
    model = open_config(folder_of(MOE | config), AS_STORED).model
    kinds = (nn.QuantizedLinear, nn.QuantizedEmbedding)
    found = [
        path
        for path, module in model.named_modules()
        if isinstance(module, kinds) or type(module).__name__ == "QuantizedSwitchLinear"
    ]
    return {path.rpartition(".")[2] for path in found}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
            {"gate", "gate_proj", "up_proj", "down_proj"},
        ),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 32, "modules_to_not_convert": []},
            {"gate", "gate_proj", "up_proj", "down_proj", "q_proj", "k_proj", "v_proj", "o_proj"},
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "ignore": ["re:.*self_attn.*", r"re:.*mlp\.(gate|up|down)_proj.*", "gate"],
            },
            {"gate_proj", "up_proj", "down_proj"},
        ),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, set()),
    ],
    ids=["mxfp4", "gptq", "compressed-tensors", "fp8"],
)
def test_what_other_tools_leave_alone(made: dict[str, Any], expected: set[str]) -> None:
    assert packed_modules({"quantization_config": made}) == expected
    assert packed_modules({"text_config": {"quantization_config": made}}) == expected


@pytest.mark.parametrize(
    ("config", "bits", "error", "match"),
    [
        (MOE | {"model_type": "none_such"}, None, UnsupportedModelError, "none_such not supported"),
        (MOE | {"hidden_size": "wide"}, None, CorruptModelError, "toy"),
        ({"model_type": "llama"}, None, CorruptModelError, "toy"),
        (MOE, 7, UnsupportedModelError, "one of 2, 3, 4, 5, 6, 8, 16"),
        (
            small_checkpoints.config_of("bitnet"),
            4,
            UnsupportedModelError,
            "are ternary, and were trained so",
        ),
        (
            MOE | {"quantization_config": {"quant_method": "awq", "bits": 8}},
            None,
            UnsupportedModelError,
            "'awq' in 8 bits",
        ),
        (
            MOE | {"quantization_config": {"quant_method": "bitsandbytes"}},
            None,
            UnsupportedModelError,
            "'bitsandbytes'",
        ),
    ],
)
def test_what_cannot_be_is_named(
    config: dict[str, Any], bits: int | None, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        open_config(folder_of(config), CPU, bits)


def test_a_config_is_left_as_it_was() -> None:
    config = small_checkpoints.config_of("gemma3")
    before = json.dumps(config)
    tied = of_config(folder_of(config))
    assert json.dumps(config) == before
    untied = of_config(folder_of(config | {"tie_word_embeddings": False}))
    assert tied.tied_bytes == untied.embedding.weight_bytes > 0
    assert tied.weight_bytes == untied.weight_bytes - tied.tied_bytes


def test_which_folders_are_configs_alone(tmp_path: Path) -> None:
    whole = write_llama(tmp_path / "whole", LlamaSizes(num_hidden_layers=1))
    assert check_config(whole) is None
    found = check_config(whole / "config.json")
    assert found is not None
    assert (found.path, found.context_length) == (whole, LlamaSizes().max_position_embeddings)
    alone = tmp_path / "alone"
    alone.mkdir()
    assert check_config(alone) is None
    text = (whole / "config.json").read_text()
    (alone / "config.json").write_text(text)
    assert check_config(alone) == replace(found, path=alone)
    (alone / "model.safetensors.index.json").write_text("{}")
    assert check_config(alone) is None, "it should hold weights"
    code = json.loads(text) | {"model_file": "own.py"}
    (tmp_path / "config.json").write_text(json.dumps(code))
    with pytest.raises(UnsupportedModelError, match="own"):
        check_config(tmp_path)
