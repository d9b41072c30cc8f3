"""Raw tensors on the wire: a dtype, a shape and a contiguous buffer.

Little-endian, C order. numpy has no bfloat16, so a tensor never becomes a numpy array here.
"""

import math
from dataclasses import dataclass

from tbcluster.errors import WireError

Buffer = bytes | bytearray | memoryview

# MLX counts the entries of an axis in 32 bits and fails with errors of its own past that.
MAX_SIZE = 2**31 - 1

ITEM_BYTES = {
    "bool": 1,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "complex64": 8,
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Dtype and shape of one tensor. `sent` is False for a value that no later layer reads:
    its bytes stay behind and the receiver stands zeros in for it."""

    dtype: str
    shape: tuple[int, ...]
    sent: bool = True

    def num_bytes(self) -> int:
        if self.dtype not in ITEM_BYTES:
            raise WireError(f"unknown dtype {self.dtype!r} on the wire")
        if any(not 0 <= size <= MAX_SIZE for size in self.shape):
            raise WireError(f"shape {self.shape} has a size that is not in 0..{MAX_SIZE}")
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A spec with its bytes (`data` is None when the spec says they were not sent)."""

    spec: TensorSpec
    data: Buffer | None


def attach_buffers(specs: list[TensorSpec], buffers: list[Buffer]) -> list[Tensor]:
    """Join specs with the frames that follow the header.

    Raises:
        WireError: The frames do not match the specs in number or size.
    """
    num_sent = sum(spec.sent for spec in specs)
    if num_sent != len(buffers):
        raise WireError(f"the header announces {num_sent} tensors, {len(buffers)} frames came")
    frames = iter(buffers)
    tensors = []
    for spec in specs:
        expected = spec.num_bytes()
        if not spec.sent:
            tensors.append(Tensor(spec, None))
            continue
        data = next(frames)
        num_bytes = memoryview(data).nbytes
        if num_bytes != expected:
            raise WireError(
                f"{spec.dtype}{list(spec.shape)} needs {expected} bytes, got {num_bytes}"
            )
        tensors.append(Tensor(spec, data))
    return tensors
