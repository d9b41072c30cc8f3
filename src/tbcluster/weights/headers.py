"""What a safetensors file says of itself, and how the files of a model are cut into pieces. Pure.

Pieces are what is fetched, verified and kept as a whole. They follow from the headers alone, so
that all nodes cut alike.
"""

import json
import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise

from tbcluster.checkpoint import ListedFile, Listing, Span
from tbcluster.errors import FetchError

# Of a piece; larger tensors are cut.
MAX_PIECE_BYTES = 16 * 1024**2
# The header's length comes before it, in so many bytes.
PREFIX_BYTES = 8
# What the safetensors library itself allows.
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Header:
    """Of a safetensors file.

    Attributes:
        length: With the 8 bytes before it.
        tensors: By name, where each one's bytes lie.
    """

    length: int
    tensors: Mapping[str, Span]


def header_length(file: ListedFile, prefix: bytes) -> int:
    """Of the header with its prefix, from the file's first 8 bytes.

    Raises:
        FetchError: This is no safetensors file.
    """
    if len(prefix) == PREFIX_BYTES:
        length = PREFIX_BYTES + int(struct.unpack("<Q", prefix)[0])
        if length <= min(file.size, PREFIX_BYTES + MAX_HEADER_BYTES):
            return length
    raise FetchError(
        f"{file.path} ({file.size} bytes) is truncated or no safetensors file: its header says no "
        "usable length"
    )


def parse_header(file: ListedFile, content: bytes) -> Header:
    """The header in a file's first bytes, which are all of it.

    Raises:
        FetchError: It is none, or none of this file.
    """
    if file.header_sha256 not in (None, sha256(content).hexdigest()):
        raise FetchError(f"the header of {file.path} is not the one that was listed")
    length = len(content)
    try:
        entries = json.loads(content[PREFIX_BYTES:])
        tensors = {
            name: _tensor_span(file, length, entry["data_offsets"])
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FetchError(f"{file.path} has no usable safetensors header: {error}") from error
    return Header(length, tensors)


def _tensor_span(file: ListedFile, header_bytes: int, offsets: list[int]) -> Span:
    start, end = (header_bytes + int(offset) for offset in offsets)
    if not header_bytes <= start <= end <= file.size:
        raise ValueError(f"a tensor lies at {start}-{end} of {file.size} bytes")
    return Span(file.path, start, end - start)


def pieces_of(file: ListedFile, header: Header | None) -> tuple[Span, ...]:
    """All bytes of a file, each in one piece: the header, then each tensor, and whatever lies
    between; all but the header are cut at MAX_PIECE_BYTES.

    Args:
        header: Of a file with weights.
    """
    bounds = {0, file.size}
    pieces = []
    if header is not None:
        pieces.append(Span(file.path, 0, header.length))
        bounds = {header.length, file.size}
        for tensor in header.tensors.values():
            bounds |= {tensor.offset, tensor.end}
    for start, end in pairwise(sorted(bounds)):
        for offset in range(start, end, MAX_PIECE_BYTES):
            pieces.append(Span(file.path, offset, min(MAX_PIECE_BYTES, end - offset)))
    return tuple(pieces)


class Pieces:
    """All pieces of a model.

    Args:
        headers: Of all its files with weights, by path.

    Attributes:
        always: What every stage needs: headers, and files without weights.
    """

    def __init__(self, listing: Listing, headers: Mapping[str, Header]) -> None:
        self._of = {file.path: pieces_of(file, headers.get(file.path)) for file in listing.files}
        self.always = tuple(
            piece
            for file in listing.files
            for piece in self._of[file.path]
            if not file.holds_weights or piece.offset < headers[file.path].length
        )

    def of(self, file: str) -> tuple[Span, ...]:
        """Those of a file, ascending; none of an unknown one."""
        return self._of.get(file, ())

    def touching(self, spans: Iterable[Span]) -> tuple[Span, ...]:
        """All pieces that hold any of these bytes, each once, ascending.

        Raises:
            FetchError: The model has no such file, or it is shorter.
        """
        found: set[Span] = set()
        for span in spans:
            pieces = self.of(span.file)
            if not 0 <= span.offset <= span.end <= (pieces[-1].end if pieces else 0):
                raise FetchError(f"{span} is not part of the model")
            if not span.length:
                continue
            first = bisect_right(pieces, span.offset, key=lambda piece: piece.end)
            for piece in pieces[first:]:
                if piece.offset >= span.end:
                    break
                found.add(piece)
        return tuple(sorted(found))
