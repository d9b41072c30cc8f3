"""Flips bits in the weights that a live process holds, as bad memory does.

The bytes of a tensor are taken from its file and looked for in the process's memory, so that it has
to be held as it is stored: float32 on a CPU, or packed. Linux only.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# As many bytes of random weights are found in no other place.
PATTERN_BYTES = 256
FLOAT_BYTES = 4
# The exponent's highest: a small number becomes a huge one, a huge one small.
EXPONENT_BIT = 6
BLOCK_BYTES = 8 << 20

needs_process_memory = pytest.mark.skipif(
    sys.platform != "linux", reason="needs /proc, where a process's memory can be written"
)


@dataclass(frozen=True, slots=True)
class Flip:
    """What was changed: so many copies of a tensor, at these addresses of the process."""

    pid: int
    tensor: str
    addresses: tuple[int, ...]


def flip_bits(pid: int, model: Path, tensor: str, num_values: int = 1) -> Flip:
    """Flip the highest exponent bit of the first float32 values of a tensor, wherever the process
    holds it.

    Raises:
        AssertionError: It is nowhere in the process's memory.
    """
    data = tensor_bytes(model, tensor)
    addresses = tuple(copies_of(pid, data[:PATTERN_BYTES]))
    assert addresses, f"process {pid} does not hold {tensor} as it is stored"
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for address in addresses:
            for value in range(num_values):
                place = address + value * FLOAT_BYTES + FLOAT_BYTES - 1
                (byte,) = os.pread(memory.fileno(), 1, place)
                os.pwrite(memory.fileno(), bytes([byte ^ (1 << EXPONENT_BIT)]), place)
    return Flip(pid, tensor, addresses)


def copies_of(pid: int, pattern: bytes) -> Iterator[int]:
    """Addresses at which a process's own memory holds these bytes."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end in _own_memory(pid):
            yield from _found(memory.fileno(), start, end, pattern)


def tensor_bytes(model: Path, tensor: str) -> bytes:
    """A tensor as the model's files hold it.

    Raises:
        KeyError: They do not.
    """
    for file in sorted(model.glob("*.safetensors")):
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
            if tensor in header:
                start, end = header[tensor]["data_offsets"]
                opened.seek(8 + length + start)
                return opened.read(end - start)
    raise KeyError(tensor)


def _own_memory(pid: int) -> Iterator[tuple[int, int]]:
    """Ranges of addresses that can be written and belong to no file."""
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        span, rights, _, _, inode, *_ = line.split()
        if rights.startswith("rw") and inode == "0":
            start, end = (int(address, 16) for address in span.split("-"))
            yield start, end


def _found(memory: int, start: int, end: int, pattern: bytes) -> Iterator[int]:
    overlap = len(pattern) - 1
    while start < end:
        try:
            block = os.pread(memory, min(BLOCK_BYTES, end - start), start)
        except OSError:
            return  # pages that were given back meanwhile, or belong to the kernel
        at = block.find(pattern)
        while at >= 0:
            yield start + at
            at = block.find(pattern, at + 1)
        if len(block) <= overlap:
            return
        start += len(block) - overlap
