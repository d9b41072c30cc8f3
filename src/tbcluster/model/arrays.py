"""MLX arrays <-> wire tensors. bfloat16 crosses as its 16-bit pattern, since numpy lacks it."""

from typing import Any

import mlx.core as mx
import numpy as np

from tbcluster.errors import WireError
from tbcluster.model.slicing import HiddenStates
from tbcluster.wire.messages import Boundary
from tbcluster.wire.tensors import Tensor, TensorSpec

_DTYPES: dict[str, mx.Dtype] = {
    "bool": mx.bool_,
    "uint8": mx.uint8,
    "uint16": mx.uint16,
    "uint32": mx.uint32,
    "uint64": mx.uint64,
    "int8": mx.int8,
    "int16": mx.int16,
    "int32": mx.int32,
    "int64": mx.int64,
    "float16": mx.float16,
    "bfloat16": mx.bfloat16,
    "float32": mx.float32,
    "complex64": mx.complex64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def to_boundary(hidden: HiddenStates) -> Boundary:
    """Evaluated hidden states as they cross the wire; live arrays are not copied."""
    tensors = [_to_tensor(a, i in hidden.live) for i, a in enumerate(hidden.arrays)]
    return Boundary(hidden.structure, tensors)


def from_boundary(boundary: Boundary) -> HiddenStates:
    """What the previous stage sent; each array is copied once, into MLX's memory."""
    arrays = [_from_tensor(tensor) for tensor in boundary.tensors]
    live = frozenset(i for i, tensor in enumerate(boundary.tensors) if tensor.spec.sent)
    return HiddenStates(boundary.structure, arrays, live)


def _to_tensor(array: mx.array, is_sent: bool) -> Tensor:
    spec = TensorSpec(_NAMES[array.dtype], tuple(array.shape), is_sent)
    if not is_sent:
        return Tensor(spec, None)
    if array.size == 0:
        return Tensor(spec, b"")
    bits = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
    view = _memory(bits)
    if not view.c_contiguous:
        view = _memory(mx.contiguous(bits))
    return Tensor(spec, view.cast("B"))


def _memory(array: Any) -> memoryview:
    # MLX arrays have the buffer protocol, which their type stubs leave out.
    return memoryview(array)


def _from_tensor(tensor: Tensor) -> mx.array:
    spec = tensor.spec
    if spec.dtype not in _DTYPES:
        raise WireError(f"unknown dtype {spec.dtype!r} on the wire")
    dtype = _DTYPES[spec.dtype]
    if tensor.data is None or 0 in spec.shape:
        return mx.zeros(spec.shape, dtype)
    is_bfloat16 = dtype == mx.bfloat16
    numpy_dtype = np.dtype("uint16" if is_bfloat16 else spec.dtype)
    array = mx.array(np.frombuffer(tensor.data, numpy_dtype).reshape(spec.shape))
    return array.view(mx.bfloat16) if is_bfloat16 else array
