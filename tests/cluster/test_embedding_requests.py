"""How a model's folder says that embeddings are pooled, and what is refused before it is queued."""

from typing import Any

import pytest

from tbcluster.cluster.embedding_requests import embedding_request, model_pooling
from tbcluster.core import Pooling
from tbcluster.engine.limits import Limits
from tbcluster.errors import ContextLengthError, RequestError

LIMITS = Limits(vocab_size=100, context_length=10)
QWEN3_EMBEDDING = {
    "word_embedding_dimension": 1024,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": False,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
    "pooling_mode_weightedmean_tokens": False,
    "pooling_mode_lasttoken": True,
    "include_prompt": True,
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Pooling.LAST),
        (QWEN3_EMBEDDING, Pooling.LAST),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, Pooling.MEAN),
        ({"pooling_mode": "mean"}, Pooling.MEAN),
        ({"pooling_mode": "lasttoken"}, Pooling.LAST),
    ],
)
def test_the_models_own_way(config: dict[str, object], expected: Pooling) -> None:
    assert model_pooling(config) == (expected, None)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"pooling_mode_cls_token": True}, "cls_token"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "max_tokens and"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
    ],
)
def test_a_way_that_is_not_served_is_told(config: dict[str, object], name: str) -> None:
    pooling, note = model_pooling(config)
    assert pooling is Pooling.LAST
    assert note is not None
    assert name in note


@pytest.mark.parametrize("pooling", [*Pooling, "last", "mean"])
def test_a_request(pooling: Pooling | str) -> None:
    request = embedding_request((1,) * 10, pooling, LIMITS, cache_prompt=False)
    assert request.pooling is Pooling(pooling)
    assert request.cache_prompt is False


def refused(tokens: tuple[int, ...], pooling: Any, limits: Limits = LIMITS) -> RequestError:
    with pytest.raises(RequestError) as caught:
        embedding_request(tokens, pooling, limits, cache_prompt=True)
    return caught.value


def test_refused_by_name() -> None:
    assert refused((1,), "max").param == "pooling"
    assert refused((1,), 7).param == "pooling"
    assert refused((), "last").param == "prompt"
    assert refused((100,), "last").param == "prompt"
    assert isinstance(refused((1,) * 11, "last"), ContextLengthError)
    few = Limits(vocab_size=100, context_length=None, kv_tokens=5, kv_note="1 MiB")
    assert "6 prompt tokens do not fit" in str(refused((1,) * 6, "mean", few))
    embedding_request((1,) * 5, "mean", few, cache_prompt=True)
    without = Limits(vocab_size=100, context_length=None, no_embeddings_because="it is shy")
    error = refused((1,), "mean", without)
    assert (error.param, str(error)) == ("model", "this model gives no embeddings: it is shy")
