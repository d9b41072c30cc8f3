"""Where a model's last hidden states are, and when nobody can say."""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from tbcluster.core import Pooling
from tbcluster.errors import StageError
from tbcluster.model.head import BeforeHead
from tbcluster.model.pooling import PendingVector, pool
from tbcluster.model.slicing import StageModel
from tbcluster.model.trace import HeadInput
from tbcluster.model.tracer import trace
from tests.doubles import architectures
from tests.model.test_trace import WIDTH, Model, ModelThatLooksAtValues

VOCABULARY = 7
LM_HEAD = HeadInput("lm_head", "__call__", True)


class Inner(Model):
    """Returns its hidden states, after a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH)
        del self.head

    def __call__(self, tokens: mx.array, cache: list[object]) -> mx.array:
        x = self.embed(tokens)
        for layer, entry in zip(self.layers, cache, strict=True):
            x = layer(x, entry)
        normed: mx.array = self.norm(x)
        return normed


class Outer(nn.Module):
    """A model whose logits are made as `finish` says."""

    def __init__(self, finish: Callable[["Outer", mx.array], mx.array]) -> None:
        super().__init__()
        self.model = Inner()
        self.lm_head = nn.Linear(WIDTH, VOCABULARY)
        self._finish = finish

    @property
    def layers(self) -> list[nn.Module]:
        return self.model.layers

    def __call__(self, tokens: mx.array, cache: list[object]) -> mx.array:
        return self._finish(self, self.model(tokens, cache))


FINISHES: dict[str, tuple[Callable[[Outer, mx.array], mx.array], HeadInput]] = {
    "a linear layer": (lambda m, h: m.lm_head(h), LM_HEAD),
    "scaled before it": (lambda m, h: m.lm_head(h / 3), LM_HEAD),
    "capped after it": (lambda m, h: mx.tanh(m.lm_head(h)), LM_HEAD),
    "the embedding": (
        lambda m, h: m.model.embed.as_linear(h),
        HeadInput("model.embed", "as_linear", True),
    ),
    "a bare product": (
        lambda m, h: h @ m.model.embed.weight.T,
        HeadInput("model", "__call__", False),
    ),
    "a head called twice": (
        lambda m, h: m.lm_head(h) + m.lm_head(h * 2),
        HeadInput("model", "__call__", False),
    ),
}


@pytest.mark.parametrize(("finish", "expected"), FINISHES.values(), ids=FINISHES.keys())
def test_where_it_is(finish: Callable[[Outer, mx.array], mx.array], expected: HeadInput) -> None:
    model = Outer(finish)
    traced = trace(model)
    assert traced.head == expected
    assert traced.no_embeddings_because is None
    tokens = mx.array([[1, 2, 3]])
    hidden = BeforeHead(model, expected)(tokens, [None] * 3)
    scale = 3 if finish is FINISHES["scaled before it"][0] else 1
    assert mx.array_equal(hidden, model.model(tokens, [None] * 3) / scale).item()
    # What was watched is as it was.
    assert model(tokens, [None] * 3).shape == (1, 3, VOCABULARY)


class PastTheNorm(Outer):
    """Its logits depend on a layer in a way that no single value tells."""

    def __call__(self, tokens: mx.array, cache: list[object]) -> mx.array:
        early = self.model.layers[0](self.model.embed(tokens), cache[0])
        return self.lm_head(self.model(tokens, cache)) + early.sum()


class Inline(Model):
    """Hands its hidden states to no module."""

    def __call__(self, tokens: mx.array, cache: list[object]) -> mx.array:
        x = self.embed(tokens)
        for layer, entry in zip(self.layers, cache, strict=True):
            x = layer(x, entry)
        return (x * 2) @ self.head.weight.T


@pytest.mark.parametrize("model", [PastTheNorm(lambda m, h: h), Inline()], ids=["past", "inline"])
def test_a_model_that_has_none_says_so(model: nn.Module) -> None:
    traced = trace(model)
    assert traced.head is None
    assert traced.no_embeddings_because is not None
    stage = StageModel(model, traced, 0, 3)
    with pytest.raises(StageError, match="no embeddings"):
        stage.forward(mx.array([[1]]), [None] * 3, stops_at_head=True)
    assert isinstance(stage.forward(mx.array([[1]]), [None] * 3), mx.array)


def test_a_model_that_cannot_be_traced_goes_by_the_usual_name() -> None:
    assert trace(architectures.build("dbrx")).head == LM_HEAD
    assert trace(ModelThatLooksAtValues()).head is None


def test_a_head_that_is_not_reached_is_an_error() -> None:
    model = Outer(lambda m, h: h @ m.lm_head.weight.T)
    with pytest.raises(StageError, match="did not call lm_head"):
        BeforeHead(model, LM_HEAD)(mx.array([[1]]), [None] * 3)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_pooling(dtype: mx.Dtype) -> None:
    # Sums that neither half type could hold.
    hidden = mx.array([[[60000.0, 1.0], [60000.0, 2.0], [256.0, 3.5]]]).astype(dtype)
    rows = np.array(hidden[0].astype(mx.float32))
    last = PendingVector(pool(hidden, Pooling.LAST)).result()
    total = PendingVector(pool(hidden, Pooling.MEAN)).result()
    assert np.frombuffer(last, "<f4").tolist() == rows[-1].tolist()
    assert np.frombuffer(total, "<f4").tolist() == rows.sum(axis=0).tolist()
