"""Shipped configs give what their makers published."""

import json

import pytest

from tbcluster.model.config_model import open_config
from tbcluster.model.device import Device
from tbcluster.model.facts import InspectedModel
from tbcluster.model.known_models import FOLDER, KNOWN, known_config, near_names
from tbcluster.model.profiling import profile_of
from tbcluster.model.source import ModelFolder
from tbcluster.planner.profile import ModelProfile
from tests.doubles import giants

METAL = Device("Metal GPU", None)
B, GB = 1e9, 1e9


def profile(name: str) -> ModelProfile:
    found = known_config(name)
    assert found is not None, name
    config, spelled = found
    folder = ModelFolder(FOLDER, config, {})
    return profile_of(InspectedModel(folder, METAL, open_config(folder, METAL)), spelled)


# In all, used by a token, and context, from model cards and technical reports; makers round. OpenAI
# leaves out the embedding of what a token uses.
@pytest.mark.parametrize(
    ("name", "in_all", "active", "context"),
    [
        ("deepseek-ai/DeepSeek-R1", 671, 37, 163840),
        ("deepseek-r1-0528", 671, 37, 163840),
        ("DeepSeek-V3.1", 671, 37, 163840),
        ("Kimi-K2-Instruct", 1040, 32, 131072),
        ("Qwen3-235B-A22B", 235, 22, 40960),
        ("Qwen3-235B-A22B-Instruct-2507", 235, 22, 262144),
        ("Qwen3-30B-A3B", 30.5, 3.3, 40960),
        ("Qwen3-32B", 32.8, 32.8, 40960),
        ("Qwen3-8B", 8.2, 8.2, 40960),
        ("Qwen3-0.6B", 0.6, 0.6, 40960),
        ("Qwen2.5-32B-Instruct", 32.5, 32.5, 32768),
        ("Llama-3.1-405B", 405.9, 405.9, 131072),
        ("Llama-3.3-70B-Instruct", 70.6, 70.6, 131072),
        ("Llama-3.1-8B", 8.03, 8.03, 131072),
        ("Llama-2-7b", 6.74, 6.74, 4096),
        ("gpt-oss-120b", 116.8, 5.13 + 0.58, 131072),
        ("gpt-oss-20b", 20.9, 3.61 + 0.58, 131072),
        ("Mistral-Small-24B", 23.6, 23.6, 32768),
        ("Mixtral-8x7B", 46.7, 12.9, 32768),
        ("gemma-3-27b-it", 27.0, 27.0, 131072),
        ("GLM-4.5-Air", 106, None, 131072),
        ("bitnet-b1.58-2B-4T", 2.4, 2.4, 4096),
    ],
)
def test_published_sizes(name: str, in_all: float, active: float | None, context: int) -> None:
    found = profile(name)
    assert found.num_parameters == pytest.approx(in_all * B, rel=0.015)
    if active is not None:
        assert found.active_parameters == pytest.approx(active * B, rel=0.03)
    assert found.context_length == context
    assert len(found.legal_cuts) == len(found.layers) - 1
    assert all(layer.attention.decode_flops for layer in found.layers)


# Of what mlx-community gives out, and of OpenAI's own files.
@pytest.mark.parametrize(
    ("name", "gigabytes", "kind"),
    [
        ("mlx-community/DeepSeek-R1-4bit", 378, "4-bit/64"),
        ("gpt-oss-120b", 65.2, "mxfp4"),
        ("gpt-oss-20b", 13.8, "mxfp4"),
        ("mlx-community/gpt-oss-20b-MXFP4-Q8", 12.1, "mxfp4"),
        ("Llama-2-7b", 13.5, "float16"),
        ("mlx-community/Llama-3.3-70B-Instruct-8bit", 75.0, "8-bit/64"),
        ("DeepSeek-V3.1", 1342, "bfloat16"),
    ],
)
def test_published_files(name: str, gigabytes: float, kind: str) -> None:
    found = profile(name)
    assert found.weight_bytes == pytest.approx(gigabytes * GB, rel=0.01)
    assert (found.weight_kind, found.name) == (kind, name)


@pytest.mark.parametrize("config", [giants.DEEPSEEK_R1, giants.KIMI_K2])
def test_configs_agree_with_those_of_the_tests(config: dict[str, object]) -> None:
    name = "DeepSeek-R1" if config is giants.DEEPSEEK_R1 else "Kimi-K2-Instruct"
    found = known_config(name)
    assert found is not None
    same = config.keys() - {"architectures", "rope_scaling"}
    assert {key: found[0][key] for key in same} == {key: config[key] for key in same}


def test_every_file_is_someones_and_every_name_one_models() -> None:
    files = {file.stem for file in FOLDER.glob("*.json")}
    assert files == {model.file for model in KNOWN}
    ids = [one.rpartition("/")[2].lower() for model in KNOWN for one in model.ids]
    assert len(ids) == len(set(ids))
    for model in KNOWN:
        assert json.dumps(model.config())
        for one in model.ids:
            assert known_config(one) == (model.config(), one)


@pytest.mark.parametrize(
    ("name", "spelled", "quantization"),
    [
        ("deepseek-r1", "DeepSeek-R1", None),
        ("DEEPSEEK-AI/deepseek-R1", "deepseek-ai/DeepSeek-R1", None),
        ("mlx-community/deepseek-r1-4bit", "mlx-community/DeepSeek-R1-4bit", 4),
        ("DeepSeek-R1-8bit", "DeepSeek-R1-8bit", 8),
        ("lmstudio-community/Qwen3-8B-MLX-6bit", "lmstudio-community/Qwen3-8B-MLX-6bit", 6),
        ("mlx-community/Qwen3-8B-bf16", "mlx-community/Qwen3-8B-bf16", None),
        ("mlx-community/Qwen3-8B-4bit-DWQ", "mlx-community/Qwen3-8B-4bit-DWQ", 4),
    ],
)
def test_names(name: str, spelled: str, quantization: int | None) -> None:
    found = known_config(name)
    assert found is not None
    config, said = found
    assert said == spelled
    assert config.get("quantization", {}).get("bits") == quantization
    if "bit" in name or "bf16" in name:
        assert "quantization_config" not in config


@pytest.mark.parametrize(
    "name", ["", "foo", "other/DeepSeek-R1", "other/DeepSeek-R1-4bit", "DeepSeek-R1-7bit", "a/b/c"]
)
def test_what_is_not_known(name: str) -> None:
    assert known_config(name) is None


def test_near_names() -> None:
    assert near_names("deepseek-r") == (
        "DeepSeek-R1",
        "DeepSeek-R1-0528",
        "DeepSeek-R1-Distill-Llama-70B",
    )
    assert "Qwen3-8B" in near_names("Qwen/Qwen3-9B")
    assert near_names("zzz") == ()
    assert near_names("") == ()
