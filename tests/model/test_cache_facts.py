"""Costs that are predicted without computing anything, against the caches of real runs."""

import time
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.cache import RotatingKVCache

from tbcluster.core import MAX_CHUNK_TOKENS, CacheCost, StageRange
from tbcluster.model.cache_facts import cache_facts, stage_cache_costs
from tbcluster.model.caches import Cache, state_arrays
from tbcluster.model.quantized import fresh_caches
from tbcluster.model.tracer import trace
from tests.doubles import architectures

BLOCK = 256
CHUNK_BESIDES = MAX_CHUNK_TOKENS - 1
# Plain, sliding windows, recurrent (several kinds), latent attention, a list of caches, chunks, a
# class of the model's own, and one that cannot be run without computing values.
NAMES = [
    "qwen2",
    "llama",
    "gemma3_text",
    "recurrent_gemma",
    "nemotron_h",
    "qwen3_next",
    "mamba2",
    "deepseek_v3",
    "deepseek_v32",
    "longcat_flash_ngram",
    "baichuan_m1",
    "llama4",
    "deepseek_v41",
    "dbrx",
]
SIZES_671B = {
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "num_attention_heads": 128,
    "num_hidden_layers": 61,
    "qk_rope_head_dim": 64,
    "q_lora_rank": 1536,
}


def build(name: str) -> nn.Module:
    model = architectures.build(name)
    model.set_dtype(mx.float32)
    return model


def costs_of_each(name: str, kv_bits: int | None = None) -> tuple[CacheCost, ...]:
    model = build(name)
    traced = trace(model)
    [costs] = stage_cache_costs(model, traced, [StageRange(0, traced.num_layers)], kv_bits)
    return costs


def predicted(costs: tuple[CacheCost, ...], num_tokens: int) -> int:
    """Bytes of caches that grow in blocks."""
    rounded = -(-num_tokens // BLOCK) * BLOCK
    held = [rounded if cost.window is None else min(rounded, cost.window) for cost in costs]
    return sum(c.fixed_bytes + c.bytes_per_token * n for c, n in zip(costs, held, strict=True))


def while_decoding(costs: tuple[CacheCost, ...]) -> tuple[CacheCost, ...]:
    """The same, without the chunk that a `RotatingKVCache` holds besides after a prompt."""
    return tuple(
        replace(cost, window=cost.window - CHUNK_BESIDES)
        if cost.window is not None and cost.window > CHUNK_BESIDES
        else cost
        for cost in costs
    )


def actual(name: str, num_tokens: int, kv_bits: int | None = None) -> tuple[int, int]:
    """Bytes after a prompt, and after one decode step more, which drops what a window no longer
    shows."""
    model = build(name)
    architectures.load(model, architectures.random_parameters(model))
    caches = fresh_caches(model, kv_bits)
    sizes = []
    for length in (num_tokens - 1, 1):
        model(mx.zeros((1, length), mx.int32), cache=caches)
        mx.eval([state_arrays(cache) for cache in caches])
        sizes.append(num_bytes(caches))
    return sizes[0], sizes[1]


def num_bytes(caches: list[Cache]) -> int:
    return sum(array.nbytes for cache in caches for array in state_arrays(cache))


@pytest.mark.parametrize("num_tokens", [20, 300])
@pytest.mark.parametrize("name", NAMES)
def test_a_real_run_takes_what_was_predicted(name: str, num_tokens: int) -> None:
    if (name, num_tokens) == ("llama4", 20):
        pytest.skip("a chunk of 8 tokens is no whole number of blocks, unlike any real one")
    costs = costs_of_each(name)
    after_prompt, taken = actual(name, num_tokens)
    assert after_prompt <= predicted(costs, num_tokens)
    block = BLOCK * sum(cost.bytes_per_token for cost in costs)
    assert taken <= predicted(while_decoding(costs), num_tokens) <= taken + block


def test_a_window_holds_a_prompts_last_chunk_besides() -> None:
    (window,) = {cost.window for cost in costs_of_each("llama")} - {None}
    cache = RotatingKVCache(max_size=8)
    for _ in range(2):
        cache.update_and_fetch(*(mx.zeros((1, 1, MAX_CHUNK_TOKENS, 1)),) * 2)
        assert cache.keys.shape[2] <= window
    assert cache.keys.shape[2] == window


@pytest.mark.parametrize("kv_bits", [8, 4])
@pytest.mark.parametrize("name", ["llama", "qwen3_next", "baichuan_m1"])
def test_quantized_caches_take_what_was_predicted(name: str, kv_bits: int) -> None:
    quantized = costs_of_each(name, kv_bits)
    assert actual(name, 20, kv_bits)[1] == predicted(while_decoding(quantized), 20)
    # Of 32 bits a value; groups of 32 add a scale and a bias of 32 bits each.
    saved = [q.bytes_per_token / p.bytes_per_token for p, q in changed(name, quantized)]
    assert saved
    assert all(saving <= (kv_bits + 2) / 32 for saving in saved)


def changed(name: str, quantized: tuple[CacheCost, ...]) -> list[tuple[CacheCost, CacheCost]]:
    pairs = zip(costs_of_each(name), quantized, strict=True)
    return [(plain, cost) for plain, cost in pairs if plain != cost]


def test_known_costs() -> None:
    # Keys and values of 4 heads of 32 float32 values; three of four layers slide a window of 8.
    sliding = CacheCost(0, 1024, 8 + CHUNK_BESIDES)
    assert set(costs_of_each("llama")) == {sliding, CacheCost(0, 1024)}


@pytest.mark.parametrize("name", ["llama", "nemotron_h", "longcat_flash_ngram", "gemma3n"])
def test_stages_share_out_the_caches(name: str) -> None:
    model = build(name)
    traced = trace(model)
    cut = traced.legal_cuts[-1]
    whole, first, last = stage_cache_costs(
        model,
        traced,
        [StageRange(0, traced.num_layers), StageRange(0, cut), StageRange(cut, traced.num_layers)],
    )
    # A cache that no layer is given is on both.
    assert len(first) + len(last) == len(whole) + len(traced.loose)
    assert {*first, *last} == set(whole)


def test_the_largest_models_take_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**architectures.CONFIGS["deepseek_v3"], **SIZES_671B}
    monkeypatch.setitem(architectures.CONFIGS, "deepseek_v3", config)
    model = architectures.build("deepseek_v3")
    model.set_dtype(mx.bfloat16)
    traced = trace(model)
    started = time.thread_time()
    [costs] = stage_cache_costs(model, traced, [StageRange(0, 61)])
    assert time.thread_time() - started < 2
    # A latent of 512 and a rotary key of 64, in two bytes each.
    assert costs == (CacheCost(0, (512 + 64) * 2),) * 61


def test_facts_of_a_model() -> None:
    model = build("llama")
    traced = trace(model)
    stages = [StageRange(0, 3), StageRange(3, 6)]
    facts = cache_facts(model, traced, stages)
    assert facts.costs == stage_cache_costs(model, traced, stages)
    assert facts.can_batch
    assert facts.max_trimmable_tokens == 8
    assert not cache_facts(model, traced, stages, kv_bits=8).can_batch
