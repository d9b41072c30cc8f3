"""Specs and frames are joined exactly or refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.errors import WireError
from tbcluster.wire.tensors import ITEM_BYTES, MAX_SIZE, Buffer, TensorSpec, attach_buffers

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
specs = st.builds(TensorSpec, st.sampled_from(sorted(ITEM_BYTES)), shapes, st.booleans())


def exact_buffers(announced: list[TensorSpec]) -> list[Buffer]:
    sent = [spec for spec in announced if spec.sent]
    return [
        bytes([i % 256]) * (math.prod(spec.shape) * ITEM_BYTES[spec.dtype])
        for i, spec in enumerate(sent)
    ]


@given(st.lists(specs, max_size=6))
def test_each_sent_spec_gets_its_frame_in_order(announced: list[TensorSpec]) -> None:
    buffers = exact_buffers(announced)
    tensors = attach_buffers(announced, buffers)
    assert [tensor.spec for tensor in tensors] == announced
    assert [t.data for t in tensors if t.spec.sent] == buffers
    assert all(t.data is None for t in tensors if not t.spec.sent)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_is_passed_on_uncopied(wrap: type) -> None:
    data = wrap(b"12345678")
    [tensor] = attach_buffers([TensorSpec("float32", (2, 1))], [data])
    assert tensor.data is data


@pytest.mark.parametrize(
    ("dtype", "shape", "num_bytes"),
    [
        ("bool", (3,), 3),
        ("bfloat16", (2, 5), 20),
        ("float32", (), 4),
        ("complex64", (1, 1, 2), 16),
        ("int64", (4, 0, 9), 0),
    ],
)
def test_num_bytes(dtype: str, shape: tuple[int, ...], num_bytes: int) -> None:
    assert TensorSpec(dtype, shape).num_bytes() == num_bytes


FLOATS = TensorSpec("float32", (2,))


@pytest.mark.parametrize(
    ("announced", "buffers", "told"),
    [
        ([FLOATS], [], "1 tensors, 0 frames"),
        ([], [b"12345678"], "0 tensors, 1 frames"),
        ([FLOATS, FLOATS], [b"12345678"], "2 tensors, 1 frames"),
        ([TensorSpec("float32", (2,), sent=False)], [b"12345678"], "0 tensors, 1 frames"),
        ([FLOATS], [b"1234567"], "needs 8 bytes, got 7"),
        ([FLOATS], [b"123456789"], "needs 8 bytes, got 9"),
        ([FLOATS], [b""], "needs 8 bytes, got 0"),
        ([TensorSpec("float32", (0,))], [b"1234"], "needs 0 bytes, got 4"),
        ([TensorSpec("float64", (1,))], [b"12345678"], "unknown dtype 'float64'"),
        ([TensorSpec("", (1,))], [b"1"], "unknown dtype ''"),
        ([TensorSpec("float32", (-2,))], [b"12345678"], "shape"),
        # The product of two negative sizes is positive.
        ([TensorSpec("float32", (-1, -2))], [b"12345678"], "shape"),
        ([TensorSpec("float32", (MAX_SIZE + 1, 0))], [b""], "shape"),
        # What is not sent is made by the receiver, so its spec is checked too.
        ([TensorSpec("float32", (-1,), sent=False)], [], "shape"),
        ([TensorSpec("float64", (1,), sent=False)], [], "unknown dtype"),
        ([TensorSpec("float32", (2**62,), sent=False)], [], "shape"),
    ],
)
def test_frames_that_do_not_fit_are_refused(
    announced: list[TensorSpec], buffers: list[Buffer], told: str
) -> None:
    with pytest.raises(WireError, match=told):
        attach_buffers(announced, buffers)
