"""Whether bytes on the disk are what the ledger says."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from tbcluster.checkpoint import ListedFile, Span
from tbcluster.weights.ledger import Dropped, Piece
from tbcluster.weights.store import Revision

NUM_THREADS = 4
BLOCK_BYTES = 1024**2

OnProgress = Callable[[int, int], None]


def hash_of(path: Path, offset: int = 0, length: int | None = None) -> str:
    """SHA-256 of these bytes of a file, in hexadecimal; up to its end without a length.

    Raises:
        OSError: It cannot be read.
    """
    digest = sha256()
    block = memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        left = os.fstat(file.fileno()).st_size - offset if length is None else length
        file.seek(offset)
        while left > 0 and (read := file.readinto(block[: min(left, BLOCK_BYTES)])):
            digest.update(block[:read])
            left -= read
    return digest.hexdigest()


def recheck(revision: Revision, files: Iterable[ListedFile]) -> tuple[Span, ...]:
    """Hash those of these files again that have changed since they were written, and drop what is
    bad; under the lock.

    Returns:
        What was dropped.

    Raises:
        OSError: A file cannot be read.
    """
    return _check(revision, [file for file in files if _has_changed(revision, file)])


def verify(
    revision: Revision, files: Iterable[ListedFile], on_progress: OnProgress = lambda *_: None
) -> tuple[Span, ...]:
    """As `recheck`, of all that is here.

    Args:
        on_progress: Called with (bytes hashed, bytes in all).
    """
    return _check(revision, list(files), on_progress)


def _check(
    revision: Revision, files: list[ListedFile], on_progress: OnProgress = lambda *_: None
) -> tuple[Span, ...]:
    pieces = [piece for file in files for piece in revision.holdings.of(file.path)]
    total = sum(piece.length for piece in pieces)
    done = 0
    bad: list[Piece] = []
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for piece, is_good in zip(
            pieces, pool.map(lambda piece: _is_good(revision, piece), pieces), strict=True
        ):
            done += piece.length
            on_progress(done, total)
            if not is_good:
                bad.append(piece)
    revision.ledger.append(Dropped(piece.file, piece.offset) for piece in bad)
    bad_files = {piece.file for piece in bad}
    for file in files:
        if file.path in bad_files:
            revision.make_part(file)  # it is whole no more
    revision.stamp(file.path for file in files)
    return tuple(piece.span for piece in bad)


def _has_changed(revision: Revision, file: ListedFile) -> bool:
    if not revision.holdings.of(file.path) or file.path in revision.holdings.lies:
        return False
    path = revision.find(file.path)
    if path is None:
        return True
    status = path.stat()
    return (status.st_size, status.st_mtime_ns) != (
        file.size,
        revision.holdings.stamps.get(file.path),
    )


def _is_good(revision: Revision, piece: Piece) -> bool:
    path = revision.find(piece.file)
    return path is not None and hash_of(path, piece.offset, piece.length) == piece.sha256
