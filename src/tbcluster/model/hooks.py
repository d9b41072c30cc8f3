"""Watching the calls of a model's layers, one instance at a time.

A hooked layer's class is replaced, on that instance alone, by a subclass of the same name one of
whose methods (`__call__`, usually) asks an observer. Attributes, `isinstance` and the parameter
tree stay as they were and no class of mlx-lm is changed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import mlx.nn as nn

CALL = "__call__"

_HOOKED: dict[tuple[type, str], type] = {}
_OBSERVER = "_tbcluster_observer"
_ORIGINAL = "_tbcluster_original"


class LayerObserver(Protocol):
    """Decides what a call of a layer does."""

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value that the call returns."""
        ...


def hook(layers: Sequence[nn.Module], observer: LayerObserver, method: str = CALL) -> None:
    """Let `observer` answer every call of these layers' method from now on."""
    for layer in layers:
        original = _original_class(layer)
        layer.__class__ = _hooked_class(original, method)
        # Set past nn.Module.__setattr__, so that the observer stays out of the parameter tree.
        object.__setattr__(layer, _OBSERVER, observer)


def unhook(layers: Sequence[nn.Module]) -> None:
    """Give these layers their own class back."""
    for layer in layers:
        layer.__class__ = _original_class(layer)
        if _OBSERVER in vars(layer):
            object.__delattr__(layer, _OBSERVER)


@contextmanager
def hooked(
    layers: Sequence[nn.Module], observer: LayerObserver, method: str = CALL
) -> Iterator[None]:
    """`hook` for the length of a block."""
    hook(layers, observer, method)
    try:
        yield
    finally:
        unhook(layers)


def call_layer(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], method: str = CALL
) -> Any:
    """Run the layer itself, past its hook."""
    return getattr(_original_class(layer), method)(layer, *args, **kwargs)


def _original_class(layer: nn.Module) -> Any:
    cls = type(layer)
    return vars(cls).get(_ORIGINAL, cls)


def _hooked_class(original: type, method: str) -> type:
    key = original, method
    if key not in _HOOKED:
        _HOOKED[key] = type(
            original.__name__,
            (original,),
            {method: _call_observer, "__module__": original.__module__, _ORIGINAL: original},
        )
    return _HOOKED[key]


def _call_observer(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    observer: LayerObserver = vars(layer)[_OBSERVER]
    return observer.on_call(layer, args, kwargs)
