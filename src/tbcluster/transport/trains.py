"""Trains: large frames cut into small ones and joined again (pure).

CURVE seals and opens each frame as a whole. A large tensor in one frame is sealed, then sent, then
opened; in small ones, both ends and the network work at the same time.

A train is one message: a first frame that says how long each frame was, then their parts in
order. A message without large frames stays as it is.
"""

import struct
from collections.abc import Iterator, Sequence

from tbcluster.errors import WireError
from tbcluster.wire.tensors import Buffer

# Of sizes from 16 KB to 1 MB, those from 64 to 256 KB were fastest (docs/log.md).
MAX_PART_BYTES = 128 * 1024
# No message of ours begins so; one that does travels as a train as well.
MARK = b"\xc1train\0\1"


def cut(frames: Sequence[Buffer], max_part_bytes: int = MAX_PART_BYTES) -> Sequence[Buffer]:
    """The same message with no frame longer than `max_part_bytes`; parts are views."""
    is_small = all(memoryview(frame).nbytes <= max_part_bytes for frame in frames)
    if is_small and not _begins_with_mark(frames):
        return frames
    views = [_bytes_of(frame) for frame in frames]
    train: list[Buffer] = [MARK + struct.pack(f"<{len(views)}Q", *(v.nbytes for v in views))]
    for view in views:
        train += [
            view[start : start + max_part_bytes]
            for start in range(0, view.nbytes or 1, max_part_bytes)
        ]
    return train


def join(frames: list[Buffer]) -> list[Buffer]:
    """What `cut` was given; takes no more memory than the parts have.

    Raises:
        WireError: The parts are not what the first frame says.
    """
    if not _begins_with_mark(frames):
        return frames
    sizes = memoryview(frames[0])[len(MARK) :]
    if sizes.nbytes % 8:
        raise WireError("a train's first frame has the wrong length")
    parts = iter(frames[1:])
    joined: list[Buffer] = []
    for (size,) in struct.iter_unpack("<Q", sizes):
        joined.append(_join_one(size, parts))
    if next(parts, None) is not None:
        raise WireError("a train has more parts than its first frame says")
    return joined


def _begins_with_mark(frames: Sequence[Buffer]) -> bool:
    return bool(frames) and bytes(_bytes_of(frames[0])[: len(MARK)]) == MARK


def _bytes_of(frame: Buffer) -> memoryview:
    view = memoryview(frame)
    # Python casts no view without items.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _join_one(size: int, parts: Iterator[Buffer]) -> Buffer:
    """The next frame, of this many bytes; one that came in one part is not copied."""
    taken: list[Buffer] = []
    missing = size
    while missing or not taken:
        part = next(parts, None)
        if part is None:
            raise WireError(f"a train ends {missing} bytes before its frame of {size} does")
        num_bytes = memoryview(part).nbytes
        if num_bytes > missing or (missing and not num_bytes):
            raise WireError(f"a part of {num_bytes} bytes came where {missing} were missing")
        missing -= num_bytes
        taken.append(part)
    return taken[0] if len(taken) == 1 else b"".join(taken)
