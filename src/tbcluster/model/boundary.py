"""The value between two layers as a tree of tagged lists plus arrays.

Usually one array; some architectures pass tuples, dicts that layers fill in, or a small object of
their own. The tree is msgpack- and JSON-able and is rebuilt without pickle: an object is only made
of a class that the receiver's own trace has seen at a boundary of the same model.
"""

import importlib
from collections.abc import Collection
from typing import Any

import mlx.core as mx

from tbcluster.errors import UnsupportedModelError, WireError

Structure = list[Any]

_MODELS = "mlx_lm.models."


def flatten(value: Any, arrays: list[mx.array]) -> Structure:
    """The structure of `value`; its arrays are appended to `arrays`, in order.

    Raises:
        UnsupportedModelError: The value holds something that cannot be sent.
    """
    if isinstance(value, mx.array):
        arrays.append(value)
        return ["array", len(arrays) - 1]
    if value is None or isinstance(value, (bool, int, float, str)):
        return ["value", value]
    if isinstance(value, tuple):
        return ["tuple", [flatten(item, arrays) for item in value]]
    if isinstance(value, list):
        return ["list", [flatten(item, arrays) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[key, flatten(item, arrays)] for key, item in value.items()]]
    return _flatten_object(value, arrays)


def unflatten(structure: Any, arrays: list[mx.array], classes: Collection[str] = ()) -> Any:
    """The value that `flatten` took apart.

    Raises:
        WireError: The structure is malformed or names a class that is not in `classes`.
    """
    try:
        return _unflatten(structure, arrays, classes)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise WireError(f"a boundary value that does not parse: {error}") from error


def mutable_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[dict[Any, Any]]:
    """The plain dicts among a layer's arguments: layers hand values on by filling them in."""
    return [value for value in (*args, *kwargs.values()) if type(value) is dict]


def classes_in(structure: Structure) -> set[str]:
    """Names of the classes whose objects the structure holds."""
    tag = structure[0]
    if tag in ("tuple", "list"):
        return set().union(*(classes_in(item) for item in structure[1]))
    if tag == "dict":
        return set().union(*(classes_in(item) for _, item in structure[1]))
    if tag == "object":
        return {structure[1]}.union(*(classes_in(item) for _, item in structure[2]))
    return set()


def _flatten_object(value: Any, arrays: list[mx.array]) -> Structure:
    cls = type(value)
    if not cls.__module__.startswith(_MODELS):
        raise UnsupportedModelError(
            f"a layer passes on a {cls.__module__}.{cls.__qualname__}, which cannot be sent"
        )
    slots = [name for base in cls.__mro__ for name in getattr(base, "__slots__", ())]
    state = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    state.update(getattr(value, "__dict__", {}))
    name = f"{cls.__module__}:{cls.__qualname__}"
    return ["object", name, [[key, flatten(item, arrays)] for key, item in state.items()]]


def _unflatten(structure: Any, arrays: list[mx.array], classes: Collection[str]) -> Any:
    tag, *rest = structure
    match tag:
        case "array":
            return arrays[rest[0]]
        case "value":
            return rest[0]
        case "tuple":
            return tuple(_unflatten(item, arrays, classes) for item in rest[0])
        case "list":
            return [_unflatten(item, arrays, classes) for item in rest[0]]
        case "dict":
            return {key: _unflatten(item, arrays, classes) for key, item in rest[0]}
        case "object":
            return _make_object(rest[0], rest[1], arrays, classes)
    raise WireError(f"unknown tag {tag!r} in a boundary value")


def _make_object(
    name: str, state: list[Any], arrays: list[mx.array], classes: Collection[str]
) -> Any:
    if name not in classes:
        raise WireError(f"a boundary value names {name!r}, which this model does not pass on")
    module, _, qualname = name.partition(":")
    cls = getattr(importlib.import_module(module), qualname)
    made = cls.__new__(cls)
    for key, item in state:
        setattr(made, key, _unflatten(item, arrays, classes))
    return made
