"""Pieces on their way to the disk: hashed, written, synced, and only then told of."""

import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Self

from tbcluster.checkpoint import Span
from tbcluster.errors import FetchError
from tbcluster.weights.ledger import Piece, sync
from tbcluster.weights.store import Revision


class RunWriter:
    """Writes adjacent pieces into a file, from content that comes in portions of any size.

    Args:
        expected: What some pieces' SHA-256 has to be.
        on_piece: Called with each piece that is written and as it has to be, but not synced.

    Attributes:
        bad: The piece whose hash was wrong, after that was raised.
    """

    def __init__(
        self,
        path: Path,
        pieces: Sequence[Span],
        expected: Mapping[Span, str],
        on_piece: Callable[[Piece], None],
    ) -> None:
        self._pieces = pieces
        self._expected = expected
        self._on_piece = on_piece
        self._file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        self.bad: Span | None = None
        self._index = 0
        self._position = pieces[0].offset
        self._digest = sha256()

    def write(self, content: bytes | memoryview) -> None:
        """The next bytes.

        Raises:
            FetchError: A piece is not what it has to be, or there are more bytes than that.
            OSError: They cannot be written.
        """
        left = memoryview(content)
        while left:
            if self._index == len(self._pieces):
                raise FetchError("more came than was asked for")
            piece = self._pieces[self._index]
            part = left[: piece.end - self._position]
            self._digest.update(part)
            _write_all(self._file, part, self._position)
            self._position += len(part)
            left = left[len(part) :]
            if self._position == piece.end:
                self._end(piece)

    def close(self) -> None:
        """What is not a whole piece is forgotten."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, piece: Span) -> None:
        found = self._digest.hexdigest()
        if self._expected.get(piece, found) != found:
            self.bad = piece
            raise FetchError(f"{piece} is not what its source says it is")
        self._digest = sha256()
        self._index += 1
        self._on_piece(Piece(piece.file, piece.offset, piece.length, found))


def seal(revision: Revision, pieces: Sequence[Piece]) -> None:
    """Have pieces that were written survive a power cut, then note them in the ledger; under the
    lock.

    Raises:
        OSError: That cannot be had; nothing is noted then.
    """
    for file in dict.fromkeys(piece.file for piece in pieces):
        number = os.open(revision.part(file), os.O_RDWR | os.O_NOFOLLOW)
        try:
            sync(number)
        finally:
            os.close(number)
    revision.ledger.append(pieces)


def _write_all(file: int, content: memoryview, offset: int) -> None:
    while content:
        count = os.pwrite(file, content, offset)
        content = content[count:]
        offset += count
