"""Whether bytes on the disk are what the ledger says."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from tbcluster.checkpoint import ListedFile, Span
from tbcluster.weights.ledger import Dropped, Piece
from tbcluster.weights.store import Revision
from tbcluster.wire.errands import Checking

NUM_THREADS = 4
BLOCK_BYTES = 1024**2
REPORT_S = 0.2

# Called with (bytes hashed, bytes in all), in any thread.
OnChecked = Callable[[int, int], None]


def reporting(report: Callable[[Checking], None]) -> OnChecked:
    """Has it reported several times a second; what takes less than that is not spoken of."""
    lock = threading.Lock()
    told_at = time.monotonic()

    def on_progress(done_bytes: int, total_bytes: int) -> None:
        nonlocal told_at
        with lock:
            now = time.monotonic()
            if now - told_at >= REPORT_S:
                told_at = now
                report(Checking(done_bytes, total_bytes))

    return on_progress


def hash_of(
    path: Path,
    offset: int = 0,
    length: int | None = None,
    on_block: Callable[[int], None] = lambda _: None,
) -> str:
    """SHA-256 of these bytes of a file, in hexadecimal; up to its end without a length.

    Args:
        on_block: Called with the length of each block that has been hashed.

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
            on_block(read)
            left -= read
    return digest.hexdigest()


def recheck(
    revision: Revision, files: Iterable[ListedFile], on_progress: OnChecked = lambda *_: None
) -> tuple[Span, ...]:
    """Hash those of these files again that have changed since they were written, and drop what is
    bad; under the lock. After a crash that is all that was being written.

    Returns:
        What was dropped.

    Raises:
        OSError: A file cannot be read.
    """
    changed = [file for file in files if _has_changed(revision, file)]
    return _check(revision, changed, on_progress)


def verify(
    revision: Revision, files: Iterable[ListedFile], on_progress: OnChecked = lambda *_: None
) -> tuple[Span, ...]:
    """As `recheck`, of all that is here."""
    return _check(revision, list(files), on_progress)


def have_hashes(files: Sequence[tuple[Path, str]], on_progress: OnChecked) -> list[bool]:
    """Whether each of these files has this SHA-256 as a whole.

    Raises:
        OSError: One cannot be read.
    """
    total = sum(path.stat().st_size for path, _ in files)
    lock, done = threading.Lock(), 0

    def count(length: int) -> None:
        nonlocal done
        with lock:
            done += length
        on_progress(done, total)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        found = pool.map(lambda file: hash_of(file[0], on_block=count) == file[1], files)
        return list(found)


def _check(revision: Revision, files: list[ListedFile], on_progress: OnChecked) -> tuple[Span, ...]:
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
