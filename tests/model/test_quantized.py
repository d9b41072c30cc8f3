"""Quantized KV caches: equal to mlx-lm's on any stage, and refused with a reason elsewhere."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import CacheList, KVCache, QuantizedKVCache, make_prompt_cache

from tbcluster.core import StageRange
from tbcluster.errors import UnsupportedModelError
from tbcluster.model.bitnet import repack_bitlinear
from tbcluster.model.caches import Cache, state_arrays
from tbcluster.model.device import Device
from tbcluster.model.loading import load_stage
from tbcluster.model.quantized import check_quantized, fresh_caches, quantize_caches
from tbcluster.model.reference import reference_continuation
from tbcluster.model.slicing import HiddenStates, StageModel
from tbcluster.model.tracer import trace
from tests.doubles import architectures
from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.stages import evaluate

CPU = Device("CPU", mx.float32)
STEP_LENGTHS = (7, 6, 1, 1, 1)


def build(name: str) -> nn.Module:
    model = architectures.build(name)
    repack_bitlinear(model, mx.float32)
    return model


def is_allowed(name: str) -> bool:
    try:
        check_quantized(build(name), 8)
    except UnsupportedModelError:
        return False
    return True


# With the sizes of the test's configs: some of the others allow it with larger heads.
ALLOWED_NAMES = """
Klear afmoe baichuan_m1 bailing_moe_linear bitnet cohere cohere2 ernie4_5 ernie4_5_moe exaone4
exaone_moe falcon_h1 gemma gemma3 gemma3_text gemma3n glm glm4 glm4_moe gpt_bigcode gpt_neox
granite granitemoe helium hunyuan hunyuan_v1_dense internlm2 internlm3 jamba laguna lfm2 lfm2-vl
lfm2_moe lille-130m llama llama4 mimo minicpm nanochat nemotron nemotron-nas olmo2 olmoe openelm
phi3 phimoe pixtral prism_hadamard_qwen35 qwen qwen2 qwen2_moe qwen3 qwen3_5 qwen3_5_moe qwen3_moe
qwen3_next qwen3_vl qwen3_vl_moe seed_oss smollm3 starcoder2 step3p5 youtu_llm
"""
ALLOWED = set(ALLOWED_NAMES.split())


class RoundedKVCache(KVCache):  # type: ignore[misc]
    """Keeps what a quantized cache would give back, as plain arrays."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        return super().update_and_fetch(rounded(keys), rounded(values))


def rounded(array: mx.array) -> mx.array:
    size = 64 if array.shape[-1] % 64 == 0 else 32
    quantized = mx.quantize(array, group_size=size, bits=8)
    return mx.dequantize(*quantized, group_size=size, bits=8)


def replaced(caches: list[Cache], make: Any) -> list[Cache]:
    """Caches with another class in place of each `KVCache`."""
    return [
        CacheList(*replaced(list(cache.caches), make))
        if isinstance(cache, CacheList)
        else make()
        if type(cache) is KVCache
        else cache
        for cache in caches
    ]


def token_steps() -> list[mx.array]:
    rng = np.random.default_rng(1)
    return [mx.array(rng.integers(0, 30, (1, n)).astype(np.int32)) for n in STEP_LENGTHS]


def run(model: nn.Module, caches: list[Cache]) -> list[mx.array]:
    outputs = []
    for tokens in token_steps():
        output = model(tokens, cache=caches)
        logits = output[0] if isinstance(output, tuple) else output
        mx.eval(logits, [state_arrays(cache) for cache in caches])
        outputs.append(logits)
    return outputs


def run_sharded(name: str, parameters: dict[str, mx.array], bounds: list[int]) -> list[mx.array]:
    traced = trace(build(name))
    stages = [
        StageModel(architectures.load(build(name), parameters), traced, start, end, kv_bits=8)
        for start, end in pairwise(bounds)
    ]
    caches = [stage.make_cache() for stage in stages]
    outputs = []
    for tokens in token_steps():
        hidden: HiddenStates | None = None
        for stage, cache in zip(stages, caches, strict=True):
            result = stage.forward(tokens, cache, hidden)
            evaluate(result, cache)
            hidden = result if isinstance(result, HiddenStates) else None
        assert isinstance(result, mx.array)
        outputs.append(result)
    return outputs


# Plain, sliding windows beside it, recurrent layers beside it, and lists of caches; the cuts leave
# stages without a quantized cache of their own, so that a ghost stands in for it.
@pytest.mark.parametrize("name", ["qwen2", "llama", "gemma3_text", "qwen3_next", "baichuan_m1"])
def test_sharded_equals_mlx_lm_with_the_same_caches(name: str) -> None:
    model = build(name)
    parameters = architectures.random_parameters(model)
    architectures.load(model, parameters)
    size = 64 if name == "qwen3_next" else 32
    plain = make_prompt_cache(model)
    expected = run(model, replaced(plain, lambda: QuantizedKVCache(group_size=size, bits=8)))
    traced = trace(build(name))
    for cut in traced.legal_cuts:
        for got, want in zip(
            run_sharded(name, parameters, [0, cut, traced.num_layers]), expected, strict=True
        ):
            assert mx.array_equal(got, want).item(), f"{name} cut at {cut}"


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_attention_reads_what_was_stored(name: str) -> None:
    model = build(name)
    architectures.load(model, architectures.random_parameters(model))
    expected = run(model, replaced(make_prompt_cache(model), RoundedKVCache))
    for got, want in zip(run(model, fresh_caches(model, 8)), expected, strict=True):
        assert mx.abs(got - want).max().item() < 1e-3 * want.std().item()


def test_half_of_all_architectures_allow_it() -> None:
    names = set(architectures.CONFIGS) - set(architectures.EXCLUDED)
    assert {name for name in names if is_allowed(name)} == ALLOWED


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt_oss", "sinks"),
        ("mamba", "no layer keeps the keys and values of all tokens"),
        ("recurrent_gemma", "no layer keeps the keys and values of all tokens"),
        ("phi", "plain arrays"),
        ("mixtral", "heads of 8 values are no multiple of 32"),
        ("deepseek_v2", "heads of 64 and 16 values"),
        ("deepseek_v3", "heads of 4 and 32 values"),
        ("dbrx", "looks at values"),
    ],
)
def test_an_architecture_that_does_not_allow_it_says_why(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        check_quantized(build(name), 8)


def test_latents_are_refused_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    config = architectures.CONFIGS["deepseek_v3"]
    larger = {**config, "kv_lora_rank": 64, "qk_rope_head_dim": 64}
    monkeypatch.setitem(architectures.CONFIGS, "deepseek_v3", larger)
    with pytest.raises(UnsupportedModelError, match="plain arrays"):
        check_quantized(build("deepseek_v3"), 8)


def test_other_numbers_of_bits_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="8 or 4 bits"):
        check_quantized(build("llama"), 3)


def test_checking_leaves_the_model_as_it_was() -> None:
    model = build("llama")
    before = [(path, id(array)) for path, array in tree_flatten(model.parameters())]
    check_quantized(model, 4)
    assert before == [(path, id(array)) for path, array in tree_flatten(model.parameters())]


def test_windows_and_states_stay_as_they_are() -> None:
    kinds = [type(c).__name__ for c in quantize_caches(make_prompt_cache(build("llama")), 8)]
    assert set(kinds) == {"RotatingKVCache", "GroupedKVCache"}
    [inner] = {
        tuple(type(part).__name__ for part in cache.caches)
        for cache in quantize_caches(make_prompt_cache(build("falcon_h1")), 8)
    }
    assert inner == ("ArraysCache", "GroupedKVCache")


def test_ghosts_are_not_quantized() -> None:
    traced = trace(build("llama"))
    kept = StageModel(build("llama"), traced, 0, 2, kv_bits=8).make_cache()
    assert not any(isinstance(cache, QuantizedKVCache) for cache in kept)
    kept = StageModel(build("llama"), traced, 0, 6, kv_bits=8).make_cache()
    assert any(isinstance(cache, QuantizedKVCache) for cache in kept)


def test_loaded_stages_continue_as_their_reference(tmp_path: Path) -> None:
    path = write_llama(tmp_path, LlamaSizes(hidden_size=128))
    prompt = [3, 1, 4, 1, 5]
    expected = reference_continuation(path, CPU, prompt, 6, kv_bits=4)
    assert expected != reference_continuation(path, CPU, prompt, 6)
    stages = [
        load_stage(path, StageRange(start, end), CPU, kv_bits=4) for start, end in ((0, 1), (1, 4))
    ]
    assert continuation(stages, prompt, 6) == expected.tokens


def continuation(stages: list[StageModel], prompt: list[int], num_tokens: int) -> tuple[int, ...]:
    caches = [stage.make_cache() for stage in stages]
    steps, found = [prompt[:-1], prompt[-1:]], []
    while len(found) < num_tokens:
        step = steps.pop(0) if steps else found[-1:]
        value: HiddenStates | mx.array | None = None
        for stage, cache in zip(stages, caches, strict=True):
            incoming = value if isinstance(value, HiddenStates) else None
            value = stage.forward(mx.array([step], dtype=mx.int32), cache, incoming)
            evaluate(value, cache)
        assert isinstance(value, mx.array)
        if not steps:
            found.append(int(value[0, -1].argmax().item()))
    return tuple(found)
