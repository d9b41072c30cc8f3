"""Cutting frames and joining them again."""

import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.errors import WireError
from tbcluster.transport.trains import MARK, MAX_PART_BYTES, cut, join

SIZES = st.lists(st.integers(0, 40), max_size=6)
PARTS = st.integers(1, 20)


def frames_of(sizes: list[int]) -> list[bytes]:
    """Frames of these sizes, all bytes of a message different from their neighbours."""
    stream = bytes(range(251)) * (1 + sum(sizes) // 251)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [stream[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def as_bytes(frames) -> list[bytes]:
    return [bytes(frame) for frame in frames]


def train(sizes: list[int], *parts: bytes) -> list[bytes]:
    return [MARK + struct.pack(f"<{len(sizes)}Q", *sizes), *parts]


@given(SIZES, PARTS)
def test_what_is_cut_is_joined_to_the_same(sizes, part_bytes):
    frames = frames_of(sizes)
    parts = as_bytes(cut(frames, part_bytes))
    assert as_bytes(join(parts)) == frames
    if parts != frames:
        assert all(len(part) <= part_bytes for part in parts[1:])


@given(st.lists(st.sampled_from([b"", b"x" * 9, MARK, MARK + b"8bytes..", MARK * 3]), max_size=4))
def test_messages_that_look_like_trains_come_through(frames):
    assert as_bytes(join(as_bytes(cut(frames, 4)))) == frames
    assert as_bytes(join(as_bytes(cut(frames)))) == frames


def test_a_message_of_small_frames_stays_as_it_is():
    frames = [b"header", bytes(MAX_PART_BYTES), b""]
    assert cut(frames) is frames
    assert join(frames) is frames
    assert cut([]) == join([]) == []


def test_only_long_frames_are_cut():
    assert as_bytes(cut([b"head", b"abcdefgh", b""], 4)) == train(
        [4, 8, 0], b"head", b"abcd", b"efgh", b""
    )


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_is_cut_without_a_copy(wrap):
    data = bytes(range(100))
    parts = cut([wrap(data)], 30)
    assert all(isinstance(part, memoryview) for part in parts[1:])
    assert as_bytes(join(list(parts))) == [data]


def test_a_view_of_wider_items_is_cut_by_its_bytes():
    wide = memoryview(bytes(range(64))).cast("Q")
    assert as_bytes(join(list(cut([wide], 7)))) == [bytes(range(64))]
    empty = memoryview(array("f"))
    assert as_bytes(cut([empty])) == [b""]
    assert as_bytes(join(list(cut([empty, wide], 7)))) == [b"", bytes(range(64))]
    marked = memoryview(MARK + bytes(8)).cast("Q")
    assert as_bytes(join(as_bytes(cut([marked])))) == [MARK + bytes(8)]


MALFORMED = {
    "sizes are cut off": [MARK + b"\0" * 7],
    "a part is missing": train([8], b"abcd"),
    "all parts are missing": train([8]),
    "the part of an empty frame is missing": train([0]),
    "a part too many": train([4], b"abcd", b"e"),
    "parts and no frame": train([], b"abcd"),
    "a part too long": train([6], b"abcd", b"efgh"),
    "a part of an empty frame": train([0], b"a"),
    "an empty part": train([4], b"ab", b"", b"cd"),
    "more than any memory": train([2**64 - 1], b"abcd"),
}


@pytest.mark.parametrize("frames", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_train_is_a_wire_error(frames):
    with pytest.raises(WireError, match=r"train|part"):
        join(frames)


@given(st.lists(st.integers(0, 9), max_size=4), st.lists(st.binary(max_size=6), max_size=6))
def test_no_train_is_joined_to_what_it_does_not_say(sizes, parts):
    try:
        joined = join(train(sizes, *parts))
    except WireError:
        return
    assert [len(frame) for frame in joined] == sizes
    assert b"".join(joined) == b"".join(parts)


def test_an_empty_train_is_an_empty_message():
    assert join(train([])) == []
