"""What a stage refuses. That its output is exact is test_golden.py's business."""

from typing import Any

import mlx.core as mx
import pytest

from tbcluster.errors import PlanError, WireError
from tbcluster.model.boundary import flatten
from tbcluster.model.slicing import HiddenStates, StageModel
from tbcluster.model.tracer import trace
from tests.doubles import architectures
from tests.doubles.stages import evaluate

TOKENS = mx.array([[1, 2, 3]])


def build_stage(name: str, start: int, end: int) -> StageModel:
    model = architectures.build(name)
    architectures.load(model, architectures.random_parameters(model))
    return StageModel(model, trace(model), start, end)


@pytest.fixture(scope="module")
def last_stage() -> StageModel:
    return build_stage("llama", 3, 6)


def hidden_states(value: Any) -> HiddenStates:
    arrays: list[mx.array] = []
    structure = flatten(value, arrays)
    return HiddenStates(structure, arrays, frozenset(range(len(arrays))))


@pytest.mark.parametrize(("start", "end"), [(0, 7), (6, 6), (4, 2), (-1, 3)])
def test_a_range_that_is_none_of_the_models(start: int, end: int) -> None:
    model = architectures.build("llama")
    with pytest.raises(PlanError, match="model of 6"):
        StageModel(model, trace(model), start, end)


def test_a_later_stage_needs_hidden_states(last_stage: StageModel) -> None:
    with pytest.raises(WireError, match="no hidden states"):
        last_stage.forward(TOKENS, last_stage.make_cache())


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="nothing"),
        pytest.param(mx.zeros((1, 3, 128)), id="a bare array"),
        pytest.param((mx.zeros((1, 3, 128)),), id="no list of dicts"),
        pytest.param((mx.zeros((1, 3, 128)), [], []), id="one too many"),
        pytest.param([mx.zeros((1, 3, 128)), []], id="a list for the pair"),
    ],
)
def test_hidden_states_of_another_form(last_stage: StageModel, value: Any) -> None:
    with pytest.raises(WireError):
        last_stage.forward(TOKENS, last_stage.make_cache(), hidden_states(value))


def test_a_refused_step_does_not_disturb_the_next(last_stage: StageModel) -> None:
    sound = hidden_states((mx.ones((1, 3, 128)), []))
    outputs = []
    for _ in range(2):
        cache = last_stage.make_cache()
        with pytest.raises(WireError):
            last_stage.forward(TOKENS, cache)
        result = last_stage.forward(TOKENS, cache, sound)
        evaluate(result, cache)
        assert isinstance(result, mx.array)
        outputs.append(result)
    assert mx.array_equal(outputs[0], outputs[1]).item()
    assert [entry.offset for entry in cache] == [3, 3, 3]


def test_a_whole_model_runs_without_hooks() -> None:
    model = architectures.build("llama")
    classes = [type(layer) for layer in model.layers]
    StageModel(model, trace(model), 0, 6)
    assert [type(layer) for layer in model.layers] == classes


def test_a_stage_keeps_its_own_caches(last_stage: StageModel) -> None:
    # Layers 3 to 5 of this llama: two of sliding attention, one of full attention.
    kinds = [type(entry).__name__ for entry in last_stage.make_cache()]
    assert kinds == ["RotatingKVCache", "RotatingKVCache", "KVCache"]
