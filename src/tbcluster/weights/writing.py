"""Pieces on their way to the disk: hashed, written, synced, and only then told of."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from tbcluster.checkpoint import Span
from tbcluster.errors import FetchError
from tbcluster.weights.ledger import Piece, sync

# What a crash may cost: bytes and seconds of what arrived last.
SYNC_BYTES = 64 * 1024**2
SYNC_S = 2.0


class RunWriter:
    """Writes adjacent pieces into a file, from content that comes in portions of any size.

    Args:
        expected: What some pieces' SHA-256 has to be.
        on_pieces: Called with pieces that are on the disk for good.

    Attributes:
        bad: The piece whose hash was wrong, after that was raised.
    """

    def __init__(
        self,
        path: Path,
        pieces: Sequence[Span],
        expected: Mapping[Span, str],
        on_pieces: Callable[[list[Piece]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pieces = pieces
        self._expected = expected
        self._on_pieces = on_pieces
        self._clock = clock
        self._file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        self.bad: Span | None = None
        self._index = 0
        self._position = pieces[0].offset
        self._digest = sha256()
        self._unsynced: list[Piece] = []
        self._unsynced_bytes = 0
        self._synced_at = clock()

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
        """Sync and tell of what is whole; the rest is forgotten.

        Raises:
            OSError: It cannot be synced.
        """
        try:
            self._tell()
        finally:
            os.close(self._file)

    def _end(self, piece: Span) -> None:
        found = self._digest.hexdigest()
        if self._expected.get(piece, found) != found:
            self.bad = piece
            raise FetchError(f"{piece} is not what its source says it is")
        self._unsynced.append(Piece(piece.file, piece.offset, piece.length, found))
        self._digest = sha256()
        self._index += 1
        self._unsynced_bytes += piece.length
        if self._unsynced_bytes >= SYNC_BYTES or self._clock() - self._synced_at >= SYNC_S:
            self._tell()

    def _tell(self) -> None:
        if self._unsynced:
            sync(self._file)
            self._on_pieces(self._unsynced)
            self._unsynced, self._unsynced_bytes = [], 0
        self._synced_at = self._clock()


def _write_all(file: int, content: memoryview, offset: int) -> None:
    while content:
        count = os.pwrite(file, content, offset)
        content = content[count:]
        offset += count
