"""A hook changes one instance's calls and nothing else that can be seen."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from tbcluster.model.hooks import call_layer, hook, hooked, unhook


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.scale = 3

    def __call__(self, x: mx.array, shift: float = 0.0) -> mx.array:
        return x * self.scale + shift


class Recorder:
    """Runs the layer and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.calls.append((layer, args, kwargs))
        return call_layer(layer, args, kwargs)


class Answer:
    """Answers in the layer's place."""

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return "answered"


def parameters(layer: nn.Module) -> list[tuple[str, int]]:
    return [(path, id(array)) for path, array in tree_flatten(layer.parameters())]


def test_the_observer_sees_the_call_and_decides_its_value() -> None:
    layer, recorder = Layer(), Recorder()
    x = mx.array(2.0)
    hook([layer], recorder)
    assert layer(x, shift=1.0).item() == 7
    [(seen, args, kwargs)] = recorder.calls
    assert seen is layer
    assert args == (x,)
    assert kwargs == {"shift": 1.0}
    hook([layer], Answer())
    assert layer(x) == "answered"
    assert len(recorder.calls) == 1


def test_a_hooked_layer_looks_as_before() -> None:
    layer = Layer()
    before = parameters(layer)
    hook([layer], Recorder())
    assert isinstance(layer, Layer)
    assert isinstance(layer, nn.Module)
    assert type(layer).__name__ == "Layer"
    assert type(layer).__module__ == Layer.__module__
    assert parameters(layer) == before
    assert layer.scale == 3
    assert layer.linear.weight.shape == (2, 2)
    assert set(layer) == set(Layer())
    layer.scale = 4
    assert layer(mx.array(1.0)).item() == 4
    layer.update({"linear": {"weight": mx.ones((2, 2))}})
    assert layer.linear.weight.sum().item() == 4


def test_other_instances_and_the_class_stay_as_they_were() -> None:
    call = Layer.__call__
    members = set(vars(Layer))
    layer, other = Layer(), Layer()
    recorder = Recorder()
    hook([layer], recorder)
    assert type(other) is Layer
    assert other(mx.array(2.0)).item() == 6
    assert Layer()(mx.array(2.0)).item() == 6
    assert recorder.calls == []
    assert Layer.__call__ is call
    assert set(vars(Layer)) == members


def test_two_instances_keep_their_own_observers() -> None:
    layers = [Layer(), Layer()]
    recorders = [Recorder(), Recorder()]
    for layer, recorder in zip(layers, recorders, strict=True):
        hook([layer], recorder)
    layers[0](mx.array(1.0))
    assert [len(recorder.calls) for recorder in recorders] == [1, 0]


def test_unhook_restores() -> None:
    layer = Layer()
    attributes, before = dict(vars(layer)), parameters(layer)
    hook([layer], Answer())
    unhook([layer])
    assert type(layer) is Layer
    assert vars(layer) == attributes
    assert parameters(layer) == before
    assert layer(mx.array(2.0)).item() == 6
    unhook([layer])  # what is not hooked is left alone
    assert type(layer) is Layer


def test_hooking_twice_is_undone_at_once() -> None:
    layer = Layer()
    hook([layer], Answer())
    hook([layer], Recorder())
    unhook([layer])
    assert type(layer) is Layer


def test_the_block_restores_after_an_error_too() -> None:
    layer = Layer()

    def use_and_fail() -> None:
        with hooked([layer], Answer()):
            assert layer(mx.array(1.0)) == "answered"
            raise KeyError

    with pytest.raises(KeyError):
        use_and_fail()
    assert type(layer) is Layer
    assert layer(mx.array(2.0)).item() == 6


def test_call_layer_passes_the_hook_and_takes_any_layer() -> None:
    layer = Layer()
    assert call_layer(layer, (mx.array(2.0),), {"shift": 1.0}).item() == 7
    hook([layer], Answer())
    assert call_layer(layer, (mx.array(2.0),), {"shift": 1.0}).item() == 7


def test_a_method_of_another_name_is_watched_alone() -> None:
    embedding, recorder = nn.Embedding(3, 2), Recorder()
    x, token = mx.ones((1, 2)), mx.array([1])
    expected = embedding.as_linear(x), embedding(token)
    with hooked([embedding], Answer(), "as_linear"):
        assert embedding.as_linear(x) == "answered"
        assert mx.array_equal(embedding(token), expected[1]).item()
        assert mx.array_equal(call_layer(embedding, (x,), {}, "as_linear"), expected[0]).item()
    assert mx.array_equal(embedding.as_linear(x), expected[0]).item()
    with hooked([embedding], recorder):
        embedding(token)
        embedding.as_linear(x)
    assert [args for _, args, _ in recorder.calls] == [(token,)]
