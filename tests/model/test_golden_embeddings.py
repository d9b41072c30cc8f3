"""What embeddings are made of equals what the unsharded model's head is given, for every
architecture, whole and cut, and chunk by chunk to the last bit.
"""

from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.model.caches import state_arrays
from tbcluster.model.hooks import call_layer, hooked
from tbcluster.model.slicing import HiddenStates, StageModel
from tbcluster.model.trace import HeadInput, ModelTrace
from tbcluster.model.tracer import trace
from tests.doubles import architectures
from tests.doubles.stages import evaluate
from tests.model.test_golden import (
    MAY_BE_NAN,
    NAMES,
    build,
    build_stage,
    over_the_wire,
    stand_in_kernels,
    token_steps,
    unsharded_logits,
)

__all__ = ["stand_in_kernels"]  # a fixture that every test here uses

NUM_CHUNKS = 3
# Their `model.model` returns what goes into the head, as most architectures' does.
CONVENTIONAL = ("llama", "qwen2", "qwen3", "gemma3_text", "mistral3", "olmo2", "phi3", "qwen3_moe")


class HeadGiven:
    """Gives a model's head other hidden states than its own forward pass does."""

    def __init__(self, where: HeadInput, hidden: mx.array) -> None:
        self._where = where
        self._hidden = hidden

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._where.is_argument:
            return self._hidden
        return call_layer(layer, (self._hidden, *args[1:]), kwargs, self._where.method)


def hidden_by_chunk(name: str, stages: list[StageModel]) -> list[mx.array]:
    caches = [stage.make_cache() for stage in stages]
    outputs = []
    for tokens in token_steps(name)[:NUM_CHUNKS]:
        hidden = result = None
        for visit in range(len(stages[0].segments)):
            for stage, cache in zip(stages, caches, strict=True):
                is_last = stage is stages[-1]
                result = stage.forward(tokens, cache, hidden, visit, stops_at_head=is_last)
                evaluate(result, cache)
                hidden = over_the_wire(result) if isinstance(result, HiddenStates) else None
        assert isinstance(result, mx.array)
        outputs.append(result)
    return outputs


def logits_from(name: str, model: nn.Module, where: HeadInput, hidden: mx.array) -> mx.array:
    """Of a fresh cache: nothing that the layers compute reaches the logits."""
    module = dict(model.named_modules())[where.path]
    tokens = mx.zeros(hidden.shape[:2], mx.int32)
    with hooked([module], HeadGiven(where, hidden), where.method):
        output = model(tokens, cache=make_prompt_cache(model))
    logits: mx.array = output[0] if isinstance(output, tuple) else output
    return logits


def stages_of(
    name: str, parameters: dict[str, mx.array], traced: ModelTrace, cuts: tuple[int, ...]
) -> list[StageModel]:
    bounds = [0, *cuts, traced.num_layers]
    return [build_stage(name, parameters, traced, start, end) for start, end in pairwise(bounds)]


@pytest.mark.parametrize("name", NAMES)
def test_the_head_makes_the_same_logits_of_it(name: str) -> None:
    model = build(name)
    parameters = architectures.random_parameters(model)
    expected = unsharded_logits(name, architectures.load(model, parameters), NUM_CHUNKS)
    traced = trace(build(name))
    assert traced.head is not None
    middle = traced.legal_cuts[len(traced.legal_cuts) // 2 :][:1]
    for cuts in {(), middle}:
        stages = stages_of(name, parameters, traced, cuts)
        for hidden, want in zip(hidden_by_chunk(name, stages), expected, strict=True):
            assert hidden.shape[-1] != want.shape[-1]
            got = logits_from(name, model, traced.head, hidden)
            equal = mx.array_equal(got, want, equal_nan=name in MAY_BE_NAN).item()
            assert equal, f"{name} cut at {cuts} differs"


@pytest.mark.parametrize("name", CONVENTIONAL)
def test_it_is_what_mlx_lms_inner_model_returns(name: str) -> None:
    model = build(name)
    parameters = architectures.random_parameters(model)
    architectures.load(model, parameters)
    cache = make_prompt_cache(model)
    expected = []
    for tokens in token_steps(name)[:NUM_CHUNKS]:
        inner = model.language_model.model if "language_model" in model else model.model
        expected.append(inner(tokens, cache=cache))
        mx.eval(expected[-1], [state_arrays(entry) for entry in cache])
    traced = trace(build(name))
    for cuts in ((), *((cut,) for cut in traced.legal_cuts)):
        got = hidden_by_chunk(name, stages_of(name, parameters, traced, cuts))
        for chunk, want in zip(got, expected, strict=True):
            assert mx.array_equal(chunk, want).item(), f"{name} cut at {cuts} differs"
