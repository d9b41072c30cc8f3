"""What of a model is on this disk and verified, as a list that only grows.

An entry is appended once the bytes it speaks of cannot be lost any more; later entries replace
earlier ones. A line that was not written whole counts for nothing.
"""

import errno
import fcntl
import os
import sys
from bisect import insort
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tbcluster.checkpoint import ListedFile, Span

MAX_READ_BYTES = 16 * 1024**2


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """These bytes are here; `sha256` is of them."""

    file: str
    offset: int
    length: int
    sha256: str

    @property
    def span(self) -> Span:
        """Which ones."""
        return Span(self.file, self.offset, self.length)


class Dropped(msgspec.Struct, frozen=True, tag="dropped"):
    """The piece at this offset turned out to be bad; no offset: all of the file."""

    file: str
    offset: int | None = None


class Stamp(msgspec.Struct, frozen=True, tag="stamp"):
    """The file's time, in ns, when all of its pieces were as they were written."""

    file: str
    mtime_ns: int


class Lies(msgspec.Struct, frozen=True, tag="lies"):
    """The whole file lies elsewhere on this machine and is used there.

    Attributes:
        at: The file itself.
        mtime_ns: Its time then; it counts as long as that is the same.
    """

    file: str
    at: str
    size: int
    mtime_ns: int


Entry = Piece | Dropped | Stamp | Lies

_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)
_encoder = msgspec.json.Encoder()


class Holdings:
    """What entries amount to. Pure."""

    def __init__(self) -> None:
        self._pieces: dict[str, dict[int, Piece]] = {}
        self._offsets: dict[str, list[int]] = {}
        self.stamps: dict[str, int] = {}
        self.lies: dict[str, Lies] = {}

    def apply(self, entry: Entry) -> None:
        """What is said later replaces what was said earlier."""
        match entry:
            case Piece():
                pieces = self._pieces.setdefault(entry.file, {})
                if entry.offset not in pieces:
                    insort(self._offsets.setdefault(entry.file, []), entry.offset)
                pieces[entry.offset] = entry
            case Stamp():
                self.stamps[entry.file] = entry.mtime_ns
            case Lies():
                self.lies[entry.file] = entry
            case Dropped(file, None):
                for kept in (self._pieces, self._offsets, self.stamps, self.lies):
                    kept.pop(file, None)
            case Dropped(file, int(offset)):
                if self._pieces.get(file, {}).pop(offset, None) is not None:
                    self._offsets[file].remove(offset)

    def find(self, piece: Span) -> Piece | None:
        """The entry of exactly these bytes."""
        found = self._pieces.get(piece.file, {}).get(piece.offset)
        return found if found is not None and found.length == piece.length else None

    def of(self, file: str) -> tuple[Piece, ...]:
        """The pieces of a file, ascending."""
        pieces = self._pieces.get(file, {})
        return tuple(pieces[offset] for offset in self._offsets.get(file, ()))

    @property
    def files(self) -> tuple[str, ...]:
        """Those that pieces are here of."""
        return tuple(file for file, pieces in self._pieces.items() if pieces)

    def is_whole(self, file: ListedFile) -> bool:
        """Whether all of a file is here."""
        return sum(piece.length for piece in self.of(file.path)) == file.size


class LedgerReader:
    """Follows a ledger from its bytes, in whatever portions they come."""

    def __init__(self) -> None:
        self.holdings = Holdings()
        self.position = 0

    def feed(self, content: bytes) -> list[Entry]:
        """Bytes from `position` on, which goes to the end of the last line; the entries in them."""
        end = content.rfind(b"\n") + 1
        entries = []
        for line in content[:end].splitlines():
            try:
                entries.append(_decoder.decode(line))
            # What was not written whole, before a power cut, say.
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            self.holdings.apply(entries[-1])
        self.position += end
        return entries


class Ledger(LedgerReader):
    """The one in this file (`path`); it need not exist."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def refresh(self) -> bool:
        """Read what has been appended; whether anything was.

        Raises:
            OSError: It cannot be read.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size < self.position:  # another one, in the place of this
                    self.holdings, self.position = Holdings(), 0
                start = self.position
                while (before := self.position) < size:
                    file.seek(before)
                    self.feed(file.read(MAX_READ_BYTES))
                    if self.position == before:  # what is left is no whole line
                        break
                return self.position > start
        except FileNotFoundError:
            return False

    def append(self, entries: Iterable[Entry]) -> None:
        """Add entries, for good; only by who holds the revision's lock. What they speak of must
        have been synced.

        Raises:
            OSError: It cannot be written; nothing counts then.
        """
        content = b"".join(_encoder.encode(entry) + b"\n" for entry in entries)
        if not content:
            return
        file = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_APPEND, 0o600)
        try:
            start = os.fstat(file).st_size
            # What was torn by a crash must not swallow the first line.
            if start and os.pread(file, 1, start - 1) != b"\n":
                content = b"\n" + content
            if os.write(file, content) < len(content):
                os.ftruncate(file, start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(file)
        finally:
            os.close(file)
        self.refresh()


def sync(file: int) -> None:
    """Have the file's content survive a power cut, as far as the system can tell the disk."""
    if sys.platform == "darwin":  # its fsync leaves bytes in the disk's own cache
        try:
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
            return
        except OSError:  # some external disks cannot
            pass
    os.fsync(file)
