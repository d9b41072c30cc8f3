"""Arrays <-> wire tensors, bit for bit."""

import contextlib

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.errors import WireError
from tbcluster.model.arrays import from_boundary, to_boundary
from tbcluster.model.slicing import HiddenStates
from tbcluster.wire.messages import Boundary, Step, decode_step, encode_step
from tbcluster.wire.tensors import ITEM_BYTES, Tensor, TensorSpec

DTYPES = sorted(ITEM_BYTES)


def mlx_dtype(name: str) -> mx.Dtype:
    return mx.bool_ if name == "bool" else getattr(mx, name)


def round_trip(*arrays: mx.array) -> list[mx.array]:
    mx.eval(arrays)
    hidden = HiddenStates(["value", None], list(arrays), frozenset(range(len(arrays))))
    return from_boundary(to_boundary(hidden)).arrays


def is_same(got: mx.array, expected: mx.array) -> bool:
    is_equal = mx.array_equal(got, expected, equal_nan=expected.dtype != mx.bool_).item()
    return got.dtype == expected.dtype and got.shape == expected.shape and bool(is_equal)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_layout_comes_back(dtype: str) -> None:
    base = mx.array(np.arange(24).reshape(2, 3, 4) % 7).astype(mlx_dtype(dtype))
    arrays = {
        "plain": base,
        "transposed": base.transpose(2, 0, 1),
        "strided": base[:, ::2, 1::2],
        "offset": base[1:, 1:],
        "broadcast": mx.broadcast_to(base[0, 0, :1], (3, 2)),
        "scalar": base[1, 2, 3],
        "empty": base[:, :0],
    }
    for (name, array), got in zip(arrays.items(), round_trip(*arrays.values()), strict=True):
        assert is_same(got, array), f"{dtype} {name}"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_special_values_keep_their_bits(dtype: str) -> None:
    tiny = 2.0**-24 if dtype == "float16" else 2.0**-130
    values = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), tiny, 1 / 3]
    array = mx.array(values).astype(mlx_dtype(dtype))
    bits = mx.uint32 if dtype == "float32" else mx.uint16
    [got] = round_trip(array)
    assert mx.array_equal(got.view(bits), array.view(bits)).item()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_wire_holds_little_endian_bytes_in_row_order(dtype: str) -> None:
    array = mx.array([[0, 1], [1, 0]]).astype(mlx_dtype(dtype)).T[:, ::-1]
    mx.eval(array)
    [tensor] = to_boundary(HiddenStates(["array", 0], [array], frozenset([0]))).tensors
    # 1 in bfloat16 is the upper half of 1 in float32.
    ones = {"bfloat16": b"\x80\x3f", "bool": b"\x01"}
    one = ones[dtype] if dtype in ones else np.ones((), dtype).tobytes()
    zero = bytes(len(one))
    assert tensor.spec == TensorSpec(dtype, (2, 2))
    assert bytes(tensor.data or b"") == one + zero + zero + one


def test_what_is_not_live_is_not_sent_and_comes_as_zeros() -> None:
    arrays = [mx.ones((2, 3), mx.bfloat16), mx.ones((4,), mx.int32)]
    mx.eval(arrays)
    boundary = to_boundary(HiddenStates(["array", 1], arrays, frozenset([1])))
    assert [tensor.spec.sent for tensor in boundary.tensors] == [False, True]
    assert boundary.tensors[0].data is None
    hidden = from_boundary(boundary)
    assert hidden.structure == ["array", 1]
    assert hidden.live == frozenset([1])
    assert is_same(hidden.arrays[0], mx.zeros((2, 3), mx.bfloat16))
    assert is_same(hidden.arrays[1], arrays[1])


def test_what_is_not_live_is_not_computed() -> None:
    # Too large to compute; a shape is all that is asked of it.
    absurd = mx.zeros((2**30, 2**30))
    boundary = to_boundary(HiddenStates(["array", 0], [absurd], frozenset()))
    assert boundary.tensors[0].spec.shape == (2**30, 2**30)


def test_the_received_array_outlives_the_message() -> None:
    data = bytearray(np.array([1, 2], np.float32).tobytes())
    boundary = Boundary(None, [Tensor(TensorSpec("float32", (2,)), data)])
    [got] = from_boundary(boundary).arrays
    data[:] = bytes(8)
    assert got.tolist() == [1, 2]


def test_an_unknown_dtype_is_refused() -> None:
    boundary = Boundary(None, [Tensor(TensorSpec("float64", (1,)), bytes(8))])
    with pytest.raises(WireError, match="float64"):
        from_boundary(boundary)


HIDDEN = HiddenStates(
    ["tuple", [["array", 0], ["array", 1]]],
    [mx.ones((1, 2, 3), mx.bfloat16), mx.zeros((2, 2))],
    frozenset([0]),
)
FRAMES = [bytes(frame) for frame in encode_step(Step(1, 1, boundary=to_boundary(HIDDEN)))]


@given(st.integers(0, len(FRAMES[0]) - 1), st.integers(1, 255))
def test_a_garbled_header_gives_arrays_or_a_wire_error(place: int, mask: int) -> None:
    header = bytearray(FRAMES[0])
    header[place] ^= mask
    with contextlib.suppress(WireError):
        boundary = decode_step([bytes(header), *FRAMES[1:]]).boundary
        if boundary is not None:
            from_boundary(boundary)
