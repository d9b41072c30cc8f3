"""Values between layers survive being taken apart; what does not parse is a WireError."""

import contextlib
import json
import sys
from typing import Any

import mlx.core as mx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models.kimi_k3 import ResidualBlocks

from tbcluster.errors import UnsupportedModelError, WireError
from tbcluster.model.boundary import classes_in, flatten, unflatten

RESIDUAL_BLOCKS = "mlx_lm.models.kimi_k3:ResidualBlocks"

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
arrays = st.integers(0, 9).map(mx.array)
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 5), inner, max_size=3)
    ),
    max_leaves=10,
)


def same(left: Any, right: Any) -> bool:
    """Equal in type and content, with the very same arrays."""
    if isinstance(left, mx.array) or type(left) is not type(right):
        return left is right
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@given(values)
def test_any_value_comes_back(value: Any) -> None:
    leaves: list[mx.array] = []
    structure = flatten(value, leaves)
    assert same(unflatten(structure, leaves), value)


@given(values)
def test_the_structure_crosses_msgpack_and_json(value: Any) -> None:
    leaves: list[mx.array] = []
    structure = flatten(value, leaves)
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(structure))
    assert same(unflatten(packed, leaves), value)
    assert same(unflatten(json.loads(json.dumps(structure)), leaves), value)


def test_arrays_are_numbered_in_order_and_an_alias_is_one_array_twice() -> None:
    first, second = mx.array(1), mx.array(2)
    leaves: list[mx.array] = []
    flatten((first, {"x": [second, first]}), leaves)
    assert [id(leaf) for leaf in leaves] == [id(first), id(second), id(first)]


def blocks() -> ResidualBlocks:
    made = ResidualBlocks(eps=1e-5)
    made.raw = mx.array([1.0, 2.0])
    return made


def test_an_object_of_a_model_comes_back_where_it_is_allowed() -> None:
    leaves: list[mx.array] = []
    structure = flatten(([blocks()], None), leaves)
    assert classes_in(structure) == {RESIDUAL_BLOCKS}
    [[made], _] = unflatten(structure, leaves, {RESIDUAL_BLOCKS})
    assert type(made) is ResidualBlocks
    assert (made.eps, made.inv_rms) == (1e-5, None)
    assert made.raw is leaves[0]


def test_an_object_with_slots_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slotted:
        __slots__ = ("left", "unset")
        left: int

    # A class is found again through its module's name.
    Slotted.__module__ = "mlx_lm.models.kimi_k3"
    Slotted.__qualname__ = "Slotted"
    monkeypatch.setattr(sys.modules[Slotted.__module__], "Slotted", Slotted, raising=False)
    value = Slotted()
    value.left = 5
    made = unflatten(flatten(value, []), [], {"mlx_lm.models.kimi_k3:Slotted"})
    assert type(made) is Slotted
    assert made.left == 5
    assert not hasattr(made, "unset")


def test_an_object_whose_class_was_not_seen_is_refused() -> None:
    structure = flatten(blocks(), [])
    with pytest.raises(WireError, match="ResidualBlocks"):
        unflatten(structure, [mx.array(1)])


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 1j, len])
def test_what_cannot_be_sent_is_told_when_it_is_taken_apart(value: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="cannot be sent"):
        flatten(("fine", value), [])


DEEP: list[Any] = ["value", 1]
for _ in range(sys.getrecursionlimit()):
    DEEP = ["list", [DEEP]]


@pytest.mark.parametrize(
    "structure",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="an empty list"),
        pytest.param(5, id="a number"),
        pytest.param("array", id="a text"),
        pytest.param(["array"], id="no index"),
        pytest.param(["array", 1], id="an index past the arrays"),
        pytest.param(["array", "0"], id="a text for an index"),
        pytest.param(["value"], id="no value"),
        pytest.param(["tuple", 5], id="a tuple of no items"),
        pytest.param(["list", [["array", 7]]], id="inside a list"),
        pytest.param(["dict", [["key"]]], id="a key without an item"),
        pytest.param(["dict", [[["key"], ["value", 1]]]], id="a key that cannot be hashed"),
        pytest.param(["eval", "1"], id="an unknown tag"),
        pytest.param([["array"], 0], id="a list for a tag"),
        pytest.param(["object", RESIDUAL_BLOCKS], id="an object without state"),
        pytest.param(["object", "os:system", []], id="a class that was not seen"),
        pytest.param(["object", ["os"], []], id="a list for a class"),
        pytest.param(["object", RESIDUAL_BLOCKS, [[5, ["value", 1]]]], id="a number for a name"),
        pytest.param(
            ["object", RESIDUAL_BLOCKS, [["__dict__", ["value", 1]]]], id="a name that is taken"
        ),
        pytest.param(
            ["object", RESIDUAL_BLOCKS, [["__weakref__", ["value", 1]]]], id="a name to read only"
        ),
        pytest.param(DEEP, id="nesting deeper than the stack"),
    ],
)
def test_a_malformed_structure_is_refused(structure: Any) -> None:
    with pytest.raises(WireError):
        unflatten(structure, [mx.array(1)], {RESIDUAL_BLOCKS})


@given(
    st.recursive(
        scalars | st.sampled_from(["array", "value", "tuple", "list", "dict", "object"]),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=12,
    )
)
def test_an_arbitrary_structure_works_or_is_refused(structure: Any) -> None:
    with contextlib.suppress(WireError):
        unflatten(structure, [mx.array(1)], {RESIDUAL_BLOCKS})
