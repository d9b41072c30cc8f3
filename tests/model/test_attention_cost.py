"""What attention multiplies, by hand."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tbcluster.model.config_model import open_config
from tbcluster.model.device import Device
from tbcluster.model.facts import InspectedModel
from tbcluster.model.profiling import profile_of
from tbcluster.model.source import ModelFolder
from tbcluster.planner.profile import AttentionCost, PartProfile
from tests.doubles import giants, small_checkpoints

CPU = Device("CPU", mx.float32)
NOTHING = AttentionCost()
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "rms_norm_eps": 1e-5,
}


def layers(config: dict[str, Any], kv_bits: int | None = None) -> tuple[PartProfile, ...]:
    folder = ModelFolder(Path("toy"), config, {})
    inspected = InspectedModel(folder, CPU, open_config(folder, CPU))
    return profile_of(inspected, "toy", kv_bits).layers


def costs(name: str, **changes: Any) -> list[AttentionCost]:
    return [layer.attention for layer in layers(small_checkpoints.config_of(name) | changes)]


def test_all_heads_look_at_keys_and_values() -> None:
    # 4 heads, and keys and values of 256 / 4 each.
    flops = 2 * 4 * (64 + 64)
    assert layers(LLAMA)[0].attention == AttentionCost(flops, flops)
    # Fewer heads of KV make no difference to what is computed.
    grouped = layers(LLAMA | {"num_key_value_heads": 1})
    assert [layer.attention for layer in grouped] == [AttentionCost(flops, flops)] * 2
    (wide, _) = layers(LLAMA | {"head_dim": 128})
    assert wide.attention == AttentionCost(2 * flops, 2 * flops)


def test_latent_attention() -> None:
    small = giants.DEEPSEEK_R1 | {"num_hidden_layers": 1}
    (layer,) = layers(small)
    assert layer.attention == AttentionCost(
        prompt_flops=2 * 128 * (192 + 128),
        decode_flops=2 * 128 * (512 + 64 + 512),
        unpack_flops=2 * 512 * 128 * (128 + 128),
    )


def test_latent_weights_with_a_plain_cache_cost_as_others() -> None:
    """mlx-lm's DeepSeek-V2 keeps keys and values unpacked."""
    config = small_checkpoints.config_of("deepseek_v2")
    heads, nope, rope, values = (
        config[key]
        for key in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    )
    flops = 2 * heads * (nope + rope + values)
    assert costs("deepseek_v2") == [AttentionCost(flops, flops)] * config["num_hidden_layers"]


@pytest.mark.parametrize("name", ["mamba2", "rwkv7"])
def test_recurrent_layers_have_none(name: str) -> None:
    assert set(costs(name)) == {NOTHING}


def test_layers_of_two_kinds() -> None:
    config = small_checkpoints.config_of("qwen3_next")
    found = layers(config)
    assert {layer.attention == NOTHING for layer in found} == {True, False}
    for layer in found:
        grows = any(cost.bytes_per_token for cost in layer.caches)
        assert grows == (layer.attention != NOTHING)


def test_heads_that_are_wider_where_there_is_no_window() -> None:
    config = small_checkpoints.config_of("gemma4")["text_config"]
    own = layers(small_checkpoints.config_of("gemma4"))[: -config["num_kv_shared_layers"]]
    kinds = {(bool(layer.caches[0].window), layer.attention.decode_flops) for layer in own}
    heads = config["num_attention_heads"]
    assert kinds == {
        (True, 4 * heads * config["head_dim"]),
        (False, 4 * heads * config["global_head_dim"]),
    }


def test_heads_of_each_layer() -> None:
    config = small_checkpoints.config_of("openelm")
    expected = [4 * heads * config["head_dim"] for heads in config["num_query_heads"]]
    assert [cost.prompt_flops for cost in costs("openelm")] == expected


def test_packed_caches_change_nothing() -> None:
    plain, packed = layers(LLAMA), layers(LLAMA, kv_bits=8)
    assert [a.attention for a in plain] == [b.attention for b in packed]
    assert plain[0].caches != packed[0].caches
