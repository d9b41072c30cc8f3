"""Forward passes that are built and never computed."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.model.caches import state_arrays
from tbcluster.model.placeholders import (
    EvaluationNeededError,
    refusing_evaluation,
    run_unevaluated,
)
from tbcluster.model.tracer import trace
from tests.doubles import architectures


def test_caches_get_shapes_and_the_model_stays() -> None:
    model = architectures.build("llama")
    before = [(path, id(array)) for path, array in tree_flatten(model.parameters())]
    caches = make_prompt_cache(model)
    run_unevaluated(model, [(caches, 5), (caches, 1)])
    assert {cache.offset for cache in caches} == {6}
    assert all(state_arrays(cache) for cache in caches)
    assert before == [(path, id(array)) for path, array in tree_flatten(model.parameters())]


def test_looking_at_a_value_is_refused() -> None:
    with pytest.raises(EvaluationNeededError):
        refusing_evaluation(lambda scalar: (scalar + 1).item(), 1)


def test_other_errors_come_through() -> None:
    with pytest.raises(ValueError, match="shapes"):
        refusing_evaluation(lambda scalar: scalar + mx.zeros((2,)) + mx.zeros((3,)), 1)
    with pytest.raises(KeyError):
        refusing_evaluation(lambda _: {}["missing"], 1)


def test_layers_before_a_refusal_have_filled_their_caches() -> None:
    model = architectures.build("dbrx")
    caches = make_prompt_cache(model)
    with pytest.raises(EvaluationNeededError):
        run_unevaluated(model, [(caches, 3)])
    assert caches[0].offset == 3


def test_weights_that_a_model_derives_are_not_kept() -> None:
    model = architectures.build("kimi_k3")
    parameters = architectures.random_parameters(model)
    trace(model)
    run_unevaluated(model, [(make_prompt_cache(model), 2)])
    architectures.load(model, parameters)
    logits = model(mx.array([[1, 2, 3]]), cache=make_prompt_cache(model))
    untouched = architectures.load(architectures.build("kimi_k3"), parameters)
    expected = untouched(mx.array([[1, 2, 3]]), cache=make_prompt_cache(untouched))
    assert mx.array_equal(logits, expected).item()
