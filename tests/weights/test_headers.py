"""Headers of safetensors files, and how files are cut by them."""

import json
import struct
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.checkpoint import ListedFile, Listing, Span, merged, num_bytes
from tbcluster.errors import FetchError
from tbcluster.weights.headers import (
    MAX_PIECE_BYTES,
    Pieces,
    header_length,
    parse_header,
    pieces_of,
)


def header_of(sizes: list[int], gap: int = 0) -> bytes:
    offset, entries = 0, {"__metadata__": {"format": "mlx"}}
    for number, size in enumerate(sizes):
        span = [offset, offset + size]
        entries[f"tensor{number}"] = {"dtype": "U8", "shape": [size], "data_offsets": span}
        offset += size + gap
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@given(
    sizes=st.lists(
        st.one_of(st.integers(0, 1000), st.integers(0, 5 * MAX_PIECE_BYTES)), max_size=20
    ),
    gap=st.integers(0, 9),
)
def test_pieces_are_all_of_a_file_once(sizes: list[int], gap: int) -> None:
    content = header_of(sizes, gap)
    size = len(content) + sum(sizes) + gap * len(sizes)
    file = ListedFile("model.safetensors", size, None, sha256(content).hexdigest())
    assert header_length(file, content[:8]) == len(content)
    header = parse_header(file, content)
    pieces = pieces_of(file, header)
    assert pieces[0] == Span(file.path, 0, len(content))
    assert pieces[-1].end == size
    assert all(one.end == other.offset for one, other in pairwise(pieces))
    assert all(0 < piece.length <= MAX_PIECE_BYTES for piece in pieces[1:])
    cut = Pieces(Listing("m", "1", "m", (file,)), {file.path: header})
    assert cut.always == pieces[:1]
    for tensor in header.tensors.values():
        touched = cut.touching([tensor])
        # No byte that belongs to another tensor comes with it.
        assert merged(touched) == merged([tensor])
        assert num_bytes(touched) == tensor.length


@given(start=st.integers(0, 70), length=st.integers(0, 70))
def test_any_span_is_covered_by_its_pieces(start: int, length: int) -> None:
    file = ListedFile("config.json", 140)
    pieces = Pieces(Listing("m", "1", "m", (file,)), {})
    assert pieces.touching([Span(file.path, start, length)]) == (pieces.always if length else ())


def test_spans_outside_of_the_model_are_refused() -> None:
    pieces = Pieces(Listing("m", "1", "m", (ListedFile("a.json", 10),)), {})
    for span in (Span("b.json", 0, 1), Span("a.json", 5, 6), Span("a.json", -1, 2)):
        with pytest.raises(FetchError, match="not part of the model"):
            pieces.touching([span])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1\0\0",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 1000) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{",
        struct.pack("<Q", 8) + b'{"a": 1}',
        struct.pack("<Q", 30) + b'{"a":{"data_offsets":[0,5000]}}'[:30],
        struct.pack("<Q", 30) + b'{"a":{"data_offsets":[9, 5]}} ',
    ],
)
def test_what_is_no_header_is_refused(content: bytes) -> None:
    file = ListedFile("model.safetensors", 100)
    with pytest.raises(FetchError, match=r"model\.safetensors"):
        parse_header(file, content[: header_length(file, content[:8])])


def test_another_header_than_the_listed_one_is_refused() -> None:
    content = header_of([5])
    file = ListedFile("model.safetensors", len(content) + 5, None, sha256(b"other").hexdigest())
    with pytest.raises(FetchError, match="not the one that was listed"):
        parse_header(file, content)
