"""Known facts about a few architectures, read off a run that computes nothing."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from tbcluster.errors import UnsupportedModelError
from tbcluster.model.trace import DECODE, PREFILL, Segment
from tbcluster.model.tracer import needed_parameters, trace
from tests.doubles import architectures

WIDTH = 4


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def __call__(self, x: mx.array, cache: object = None) -> mx.array:
        projected: mx.array = self.linear(x)
        return projected


class Model(nn.Module):
    """The least that mlx-lm's conventions ask of a model."""

    def __init__(self, num_layers: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, WIDTH)
        self.layers = [Layer() for _ in range(num_layers)]
        self.head = nn.Linear(WIDTH, 7)

    def __call__(self, tokens: mx.array, cache: list[object]) -> mx.array:
        x = self.embed(tokens)
        for layer, entry in zip(self.layers, cache, strict=True):
            x = layer(x, entry)
        logits: mx.array = self.head(x)
        return logits


class ModelThatLooksAtValues(Model):
    def __call__(self, tokens: mx.array, cache: list[object]) -> mx.array:
        logits = super().__call__(tokens, cache)
        return -logits if mx.any(logits > 0) else logits


class LayerThatPassesOnASet(Layer):
    def __call__(self, x: mx.array, cache: object = None) -> mx.array:
        return {1}  # type: ignore[return-value]


class LayerThatFails(Layer):
    def __call__(self, x: mx.array, cache: object = None) -> mx.array:
        raise ValueError("shapes do not match")


def identities(model: nn.Module) -> list[tuple[str, int]]:
    return [(path, id(array)) for path, array in tree_flatten(model.parameters())]


def test_a_plain_model_can_be_cut_anywhere() -> None:
    traced = trace(architectures.build("llama"))
    assert (traced.num_layers, traced.num_caches, traced.num_visits) == (6, 6, 1)
    assert traced.legal_cuts == (1, 2, 3, 4, 5)
    assert traced.uncuttable_because is None
    assert [(call.layer, call.caches) for call in traced.calls] == [(i, (i,)) for i in range(6)]
    assert traced.vocab_size == 1000
    assert traced.loose == frozenset()
    cut = traced.cut(3)
    assert (cut.live, cut.growing, cut.leaked_layers, cut.shared_caches) == ((0,), (), (), ())
    assert cut.bytes_per_token == 128 * 4
    before = traced.calls[2].values
    assert before[PREFILL].shapes == ((1, 3, 128),)
    assert before[DECODE].shapes == ((1, 1, 128),)


def test_what_each_stage_of_a_tied_model_reads() -> None:
    model = architectures.build("llama")
    traced = trace(model)
    outside = [
        {path for path in needed_parameters(model, traced, start, end) if "layers" not in path}
        for start, end in ((0, 2), (2, 4), (4, 6))
    ]
    embedding = "model.embed_tokens.weight"
    assert outside == [{embedding}, set(), {embedding, "model.norm.weight"}]
    middle = needed_parameters(model, traced, 2, 4)
    assert {path.split(".")[2] for path in middle} == {"2", "3"}
    assert needed_parameters(model, traced, 0, 6) == set(traced.parameters)


def test_a_looped_model_passes_its_layers_twice() -> None:
    traced = trace(architectures.build("nanbeige"))
    assert traced.num_visits == 2
    assert [call.layer for call in traced.calls] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert traced.num_caches == 8
    assert traced.legal_cuts == (1, 2, 3)
    assert traced.cut_calls(2) == [2, 4, 6]
    assert traced.segments(0, 2) == [Segment(0, 2), Segment(4, 6)]
    assert traced.segments(2, 4) == [Segment(2, 4), Segment(6, 8)]
    # The last stage's second segment touches the first stage's: nothing to hop over in between.
    assert traced.segments(0, 4) == [Segment(0, 8)]


def test_shared_keys_and_values_grow_at_the_boundary_and_leak_past_it() -> None:
    # gemma4's last four of ten layers reuse the keys and values that layers 4 and 5 hand on.
    traced = trace(architectures.build("gemma4"))
    assert traced.legal_cuts == (1, 2, 3, 4)
    assert traced.cut(1).live == (0,)
    assert traced.cut(5).leaked_layers == ()
    assert traced.cut(5).growing == (1, 2, 3)
    assert traced.cut(6).leaked_layers == (0, 1, 2, 3, 4)
    assert traced.cut(9).growing == ()


def test_compressed_keys_and_values_grow_at_the_boundary() -> None:
    traced = trace(architectures.build("deepseek_v41"))
    assert traced.legal_cuts == (1, 3, 4)
    # Five arrays cross; at 2 what layer 1 compressed is still to be read, at 3 no more.
    assert len(traced.calls[1].values[DECODE].shapes) == 5
    assert traced.cut(2).live == (0, 1, 2, 4)
    assert traced.cut(2).growing == (2, 4)
    assert traced.cut(2).leaked_layers == ()
    assert traced.cut(3).live == (0, 1)
    assert traced.cut(3).growing == ()


def test_caches_that_both_sides_write() -> None:
    traced = trace(architectures.build("gemma3n"))
    assert traced.cut(4).shared_caches == ()
    assert traced.cut(5).shared_caches == (4,)
    assert traced.cut(6).shared_caches == (4, 5)


def test_a_packed_ternary_model_is_traced_without_its_kernel() -> None:
    traced = trace(architectures.build("bitnet"))
    assert traced.legal_cuts == (1, 2, 3, 4, 5)
    assert traced.cut(3).live == (0,)


def test_a_cache_that_no_layer_is_given_is_loose() -> None:
    traced = trace(architectures.build("longcat_flash_ngram"))
    assert traced.loose == frozenset([0])


def test_an_object_at_the_boundary_is_known_by_its_class() -> None:
    traced = trace(architectures.build("kimi_k3"))
    assert traced.boundary_classes == {"mlx_lm.models.kimi_k3:ResidualBlocks"}


def test_a_model_that_looks_at_values_is_cut_by_its_structure() -> None:
    model = ModelThatLooksAtValues()
    traced = trace(model)
    assert traced.graph is None
    assert traced.legal_cuts == (1, 2)
    assert [(call.layer, call.caches) for call in traced.calls] == [(i, (i,)) for i in range(3)]
    linear = ["linear.bias", "linear.weight"]
    assert sorted(needed_parameters(model, traced, 1, 2)) == [f"layers.1.{p}" for p in linear]
    assert {"embed.weight", "head.weight"} <= needed_parameters(model, traced, 0, 1)


@pytest.mark.parametrize(
    ("num_layers", "reason"), [(1, "it has a single layer"), (2, None)], ids=["one", "two"]
)
def test_why_a_model_cannot_be_cut(num_layers: int, reason: str | None) -> None:
    assert trace(Model(num_layers)).uncuttable_because == reason


@pytest.mark.parametrize("name", ["llama", "nanbeige", "gemma4", "bitnet", "dbrx"])
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = architectures.build(name)
    before = identities(model)
    classes = [type(layer) for layer in model.layers]
    trace(model)
    assert identities(model) == before
    assert [type(layer) for layer in model.layers] == classes


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (LayerThatPassesOnASet, "builtins.set, which cannot be sent"),
        (LayerThatFails, "forward pass fails: shapes do not match"),
    ],
    ids=["passes on a set", "fails"],
)
def test_a_model_that_cannot_be_traced_says_why_and_is_left_as_it_was(
    layer: type[Layer], told: str
) -> None:
    model = Model()
    model.layers[1] = layer()
    before = identities(model)
    with pytest.raises(UnsupportedModelError, match=told):
        trace(model)
    assert identities(model) == before
    assert [type(each) for each in model.layers] == [Layer, layer, Layer]


def test_nothing_is_computed() -> None:
    # 2^40 weights a layer: evaluating any would need terabytes.
    model = Model()
    huge = mx.zeros((WIDTH, 2**30, 2**8))[:, 0, 0]
    for each in model.layers:
        each.linear.bias = huge
    assert trace(model).legal_cuts == (1, 2)
