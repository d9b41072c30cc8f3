"""What is known of a model before it is loaded, from a toy to a trillion parameters."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from tbcluster.core import CacheCost, StageRange
from tbcluster.errors import UnsupportedModelError
from tbcluster.model.device import Device
from tbcluster.model.experts import experts_by_config
from tbcluster.model.facts import InspectedModel
from tbcluster.model.profiling import profile_of
from tbcluster.model.source import check_folder
from tbcluster.model.tracer import needed_parameters
from tbcluster.planner.profile import AttentionCost, ModelProfile, PartProfile
from tests.doubles import giants, small_checkpoints
from tests.doubles.checkpoints import LlamaSizes, write_llama

CPU = Device("CPU", mx.float32)
AS_STORED = Device("any", None)
IO_COUNTERS = Path("/proc/self/io")
GB = 10**9


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("giants")
    return {
        "DeepSeek-R1": giants.write_quantized(path / "DeepSeek-R1"),
        "Kimi-K2": giants.write_quantized(path / "Kimi-K2", giants.KIMI_K2),
    }


@pytest.fixture(scope="module")
def profiles(folders: dict[str, Path]) -> dict[str, ModelProfile]:
    return {name: profile(path, AS_STORED) for name, path in folders.items()}


def profile(path: Path, device: Device = CPU, kv_bits: int | None = None) -> ModelProfile:
    return profile_of(InspectedModel(check_folder(path), device), path.name, kv_bits)


# Totals, in billions, as their makers give them; bytes are those of the conversions to 4 bits.
@pytest.mark.parametrize(
    ("name", "in_all", "active", "gigabytes"),
    [("DeepSeek-R1", 671, 37.5, 378), ("Kimi-K2", 1026, 32.9, 578)],
)
def test_giants(
    profiles: dict[str, ModelProfile], name: str, in_all: float, active: float, gigabytes: float
) -> None:
    giant = profiles[name]
    assert giant.name == name
    assert giant.num_parameters == pytest.approx(in_all * GB, rel=0.001)
    assert giant.active_parameters == pytest.approx(active * GB, rel=0.002)
    assert giant.weight_bytes == pytest.approx(gigabytes * GB, rel=0.002)
    assert giant.file_bytes == pytest.approx(giant.weight_bytes, rel=0.0001)
    assert giant.weight_kind == "4-bit/64"
    assert giant.legal_cuts == tuple(range(1, 61))
    # A latent of 512 + 64 values in bfloat16 for each token and layer.
    assert [layer.caches for layer in giant.layers] == [(CacheCost(0, 1152),)] * 61
    assert giant.hidden_bytes == 7168 * 2
    assert (giant.shared, giant.tied_bytes) == (PartProfile(0, 0), 0)


def test_the_parts_of_a_giant(profiles: dict[str, ModelProfile]) -> None:
    giant = profiles["DeepSeek-R1"]
    assert (giant.architecture, giant.vocab_size) == ("deepseek_v3", 129280)
    assert (giant.context_length, giant.num_visits) == (163840, 1)
    assert {layer.num_experts for layer in giant.layers[:3]} == {0}
    (layer,) = set(giant.layers[3:])
    assert (layer.num_experts, layer.experts_per_token) == (256, 8)
    # 4 bits a value, and 16 + 16 bits of scale and bias for each 64 of them.
    expert = 3 * 7168 * 2048
    assert layer.expert_bytes == 256 * expert * 4.5 / 8
    attention = 7168 * (1536 + 576) + 1536 * 128 * 192 + 128 * 512 * 256 + 128 * 128 * 7168
    assert layer.flops == 2 * (attention + 9 * expert + 256 * 7168)
    table = 129280 * 7168
    assert (giant.embedding.flops, giant.embedding.lookup_bytes) == (0, table * 4.5 / 8)
    assert giant.embedding.lookup_bytes == giant.embedding.weight_bytes
    assert giant.head.flops == 2 * table
    assert giant.head.weight_bytes == table * 4.5 / 8 + 7168 * 2


def test_a_giant_in_another_form_is_the_same_model(
    profiles: dict[str, ModelProfile], tmp_path: Path
) -> None:
    config = giants.DEEPSEEK_R1 | {"num_hidden_layers": 5, "num_nextn_predict_layers": 0}
    fp8 = profile(giants.write_fp8(tmp_path / "fp8", config), AS_STORED)
    layer, quantized = fp8.layers[3], profiles["DeepSeek-R1"].layers[3]
    assert fp8.weight_kind == "bfloat16"
    assert layer.expert_bytes == 256 * 3 * 7168 * 2048 * 2
    assert (layer.flops, layer.caches) == (quantized.flops, quantized.caches)
    assert fp8.file_bytes < fp8.weight_bytes * 0.6


@pytest.mark.skipif(not IO_COUNTERS.exists(), reason="only Linux counts the bytes a process reads")
def test_no_weight_is_read(folders: dict[str, Path]) -> None:
    path = folders["Kimi-K2"]
    in_files = sum(file.stat().st_blocks for file in path.iterdir()) * 512
    mx.reset_peak_memory()
    active, before = mx.get_active_memory(), bytes_read()
    profile(path)
    # Each header is read by three readers; one expert's weights alone are 8 MB.
    assert bytes_read() - before < 5 * 10**6
    assert mx.get_peak_memory() - active < 10**6
    assert sum(file.stat().st_blocks for file in path.iterdir()) * 512 == in_files < 5 * 10**6


def bytes_read() -> int:
    return int(IO_COUNTERS.read_text().split("rchar:")[1].split()[0])


def test_a_tied_llama(tmp_path: Path) -> None:
    sizes = LlamaSizes(tie_word_embeddings=True)
    found = profile(write_llama(tmp_path, sizes))
    table = sizes.vocab_size * sizes.hidden_size
    matrices, norms = (2 * 64 + 2 * 32) * 64 + 3 * 64 * 128, 2 * 64
    # Keys and values of two heads of 16 in float32.
    cache = CacheCost(0, 2 * 2 * 16 * 4)
    # Four heads, with keys and values of 16 each.
    attention = AttentionCost(2 * 4 * 32, 2 * 4 * 32)
    weight_bytes = (matrices + norms) * 4
    layer = PartProfile(weight_bytes, 2 * matrices, caches=(cache,), attention=attention)
    assert found.layers == (layer,) * 4
    assert found.embedding == PartProfile(table * 4, 0, lookup_bytes=table * 4)
    assert found.head == PartProfile((table + 64) * 4, 2 * table)
    assert found.tied_bytes == table * 4
    assert found.num_parameters == found.active_parameters == table + 64 + 4 * (matrices + norms)
    assert found.weight_bytes == 4 * found.num_parameters
    assert found.hidden_bytes == 64 * 4


def stage_bytes(found: ModelProfile, layers: StageRange) -> int:
    """What a planner counts for a stage."""
    parts = [found.shared, *found.layers[layers.start : layers.end]]
    parts += [found.embedding] if layers.start == 0 else []
    parts += [found.head] if layers.end == len(found.layers) else []
    is_whole = layers == StageRange(0, len(found.layers))
    return sum(part.weight_bytes for part in parts) - is_whole * found.tied_bytes


def needed_bytes(inspected: InspectedModel, layers: StageRange) -> int:
    """What a stage really loads."""
    model = inspected.opened.model
    needed = needed_parameters(model, inspected.traced, layers.start, layers.end)
    arrays = tree_flatten(model.parameters())
    return sum(array.nbytes for path, array in arrays if path in needed)


# Tied, with a table for each layer, looped, recurrent, with experts, traced by structure alone,
# in one piece.
EXACT = ("llama", "gemma4", "nanbeige", "qwen3_next", "gpt_oss", "dbrx", "iquestloopcoder")


@pytest.mark.parametrize("name", EXACT)
def test_parts_are_what_stages_load(tmp_path: Path, name: str) -> None:
    path = small_checkpoints.write_architecture(tmp_path, name)
    inspected = InspectedModel(check_folder(path), CPU)
    found = profile_of(inspected, name)
    bounds = (0, *found.legal_cuts, len(found.layers))
    stages = [StageRange(*pair) for pair in pairwise(bounds)]
    for stage in {*stages, StageRange(0, len(found.layers))}:
        assert stage_bytes(found, stage) == needed_bytes(inspected, stage)
    assert found.weight_bytes == inspected.facts.weight_bytes
    caches = inspected.cache_facts(stages, None).costs
    for stage, costs in zip(stages, caches, strict=True):
        parts = [found.shared, *found.layers[stage.start : stage.end]]
        assert sorted(key(c) for p in parts for c in p.caches) == sorted(key(c) for c in costs)


def key(cost: CacheCost) -> tuple[int, int, int]:
    return cost.fixed_bytes, cost.bytes_per_token, cost.window or 0


EXPERTS = ("mixtral", "gpt_oss", "qwen3_next", "deepseek_v3", "llama4", "granitemoe", "kimi_k3")


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_of_a_token_are_counted_as_they_are_used(tmp_path: Path, name: str) -> None:
    path = small_checkpoints.write_architecture(tmp_path, name)
    inspected = InspectedModel(check_folder(path), CPU)
    layers = [layer for layer in profile_of(inspected, name).layers if layer.num_experts]
    assert inspected.traced.experts_used
    told = experts_by_config(inspected.folder.config)
    assert {layer.experts_per_token for layer in layers} == {told}
    assert all(0 < layer.expert_bytes < layer.weight_bytes for layer in layers)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_experts_per_tok": 4}, 4),
        ({"moe_topk": 6, "text_config": {"top_k_experts": 2}}, 2),
        ({"moe_topk": "all", "text_config": None}, None),
    ],
)
def test_experts_by_config(config: dict[str, Any], expected: int | None) -> None:
    assert experts_by_config(config) == expected


def test_other_types(tmp_path: Path) -> None:
    plain = profile(small_checkpoints.write_architecture(tmp_path / "plain", "mixtral"))
    packed = profile(small_checkpoints.write_quantized(tmp_path / "packed", "mixtral"))
    assert (plain.weight_kind, packed.weight_kind) == ("float32", "4-bit/32")
    assert plain.num_parameters == packed.num_parameters == plain.weight_bytes / 4
    assert plain.active_parameters == packed.active_parameters < plain.num_parameters
    assert [a.flops for a in plain.layers] == [b.flops for b in packed.layers]
    assert packed.weight_bytes < plain.weight_bytes / 3


def test_quantized_caches(tmp_path: Path) -> None:
    write_llama(tmp_path, LlamaSizes(hidden_size=256, num_hidden_layers=2))
    plain, packed = (profile(tmp_path, kv_bits=bits).layers[0].caches[0] for bits in (None, 8))
    assert packed.bytes_per_token < plain.bytes_per_token / 2
    with pytest.raises(UnsupportedModelError, match="8 or 4"):
        profile(tmp_path, kv_bits=3)
