"""A node's own store of models: whole files and parts of files, in folders by model and revision.

    <store>/<owner--name>/<revision>/config.json              a file that is whole
                                     model.safetensors.part   one that is not: of its real size,
                                                              with holes
                                     .tbcluster/ledger        what of it is here and verified
                                     .tbcluster/listing.json  what the model consists of
                                     .tbcluster/views/        folders that stages load from

A process may be killed at any point: what the ledger speaks of is there, nothing else counts.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tbcluster.checkpoint import ListedFile, Listing, Span
from tbcluster.errors import DiskFullError, FetchError
from tbcluster.hardware.folders import config_folder
from tbcluster.weights.headers import (
    PREFIX_BYTES,
    Header,
    Pieces,
    header_length,
    parse_header,
)
from tbcluster.weights.ledger import Holdings, Ledger, Lies, Stamp, sync
from tbcluster.weights.views import VIEWS, make_private, repoint, sync_folder

OWN_FOLDER = ".tbcluster"
PART = ".part"

_REVISION = re.compile(r"[0-9A-Za-z][\w.-]{0,127}", re.ASCII)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def store_folder() -> Path:
    """Where this node's store is if nothing else is said."""
    return config_folder() / "models"


def folder_name(model: str) -> str:
    """Of a model in a store.

    Raises:
        FetchError: This can be no model's name.
    """
    name = model.replace("/", "--")
    if not name or name.startswith(".") or not name.isprintable() or set(name) & {"\\", "\0"}:
        raise FetchError(f"{model!r} cannot be kept in a store: it is no model's name")
    return name


def check_listing(listing: Listing) -> None:
    """Whether a store can hold it.

    Raises:
        FetchError: A name leads out of its folder, or means something else there.
    """
    folder_name(listing.model)
    if not _REVISION.fullmatch(listing.revision):
        raise FetchError(f"{listing.revision!r} is no revision of a model")
    for file in listing.files:
        names = file.path.split("/")
        is_plain = all(names) and not any(name.startswith(".") for name in names)
        if not is_plain or set(file.path) & {"\\", "\0"} or file.path.endswith(PART):
            raise FetchError(f"{file.path!r} is no name for a model's file")


class Store:
    """All models in one folder, which need not exist."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else store_folder()

    def revision(self, model: str, revision: str) -> "Revision":
        """Of a model, whether anything of it is here or not.

        Raises:
            FetchError: The names cannot be one's.
        """
        if not _REVISION.fullmatch(revision):
            raise FetchError(f"{revision!r} is no revision of a model")
        return Revision(self.path / folder_name(model) / revision)

    def revisions(self) -> Iterator["Revision"]:
        """All that are here, whole or not, the newest first."""
        found = [path.parent for path in self.path.glob(f"*/*/{OWN_FOLDER}")]
        for path in sorted(found, key=_changed_at, reverse=True):
            yield Revision(path)


class Revision:
    """One revision of a model in a store.

    Attributes:
        ledger: As it was when it was last read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.own = path / OWN_FOLDER
        self.ledger = Ledger(self.own / "ledger")

    def listing(self) -> Listing | None:
        """What the model consists of; None where nothing of it is here."""
        try:
            return msgspec.json.decode((self.own / "listing.json").read_bytes(), type=Listing)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    @contextmanager
    def locked(self, listing: Listing, *, waits: bool = True) -> Iterator[bool]:
        """Make the folder for it and write there, one process at a time; others wait, or are given
        False.

        Raises:
            FetchError: It cannot be written.
        """
        check_listing(listing)
        with writes(self.path):
            make_private(self.own)
            lock = os.open(self.own / "lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            with writes(self.path):
                is_ours = _lock(lock, waits=waits)
                if is_ours and self.listing() != listing:
                    _replace(self.own / "listing.json", msgspec.json.encode(listing))
                self.ledger.refresh()
            yield is_ours
        finally:
            os.close(lock)

    @property
    def holdings(self) -> Holdings:
        """What is here, as the ledger said when it was last read."""
        return self.ledger.holdings

    def whole(self, file: str) -> Path:
        """Where a file is once all of it is here."""
        return self.path / file

    def part(self, file: str) -> Path:
        """Where it is before."""
        return self.path / (file + PART)

    def find(self, file: str) -> Path | None:
        """Where what is here of a file lies; None where nothing is."""
        elsewhere = self.holdings.lies.get(file)
        if elsewhere is not None:
            return Path(elsewhere.at) if is_unchanged(elsewhere) else None
        for path in (self.whole(file), self.part(file)):
            if path.is_file():
                return path
        return None

    def holds(self, piece: Span) -> bool:
        """Whether this piece is here; asked once files that lie elsewhere have been looked at."""
        return piece.file in self.holdings.lies or self.holdings.find(piece) is not None

    def spans(self, file: ListedFile) -> tuple[Span, ...]:
        """What is here of a file and verified; not merged."""
        if self.find(file.path) is None:
            return ()
        if file.path in self.holdings.lies:
            return (Span(file.path, 0, file.size),)
        return tuple(piece.span for piece in self.holdings.of(file.path))

    def make_part(self, file: ListedFile) -> Path:
        """The file to write pieces into, of its real size, with holes; under the lock.

        Raises:
            OSError: It cannot be made.
        """
        whole, part = self.whole(file.path), self.part(file.path)
        if whole.is_file() and not part.exists():  # pieces of it turned out to be bad
            self._rename(whole, part)
        make_private(part.parent)
        number = os.open(part, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(number).st_size != file.size:
                os.ftruncate(number, file.size)
        finally:
            os.close(number)
        return part

    def finish(self, file: str) -> None:
        """All of a file is here: give it its own name; under the lock.

        Raises:
            OSError: It cannot be renamed.
        """
        self._rename(self.part(file), self.whole(file))

    def stamp(self, files: Iterable[str]) -> None:
        """Remember the times of files that are as they should be, so that they are hashed again
        only once they have changed; under the lock."""
        entries = []
        for file in files:
            path = self.find(file)
            if path is not None and file not in self.holdings.lies:
                mtime_ns = path.stat().st_mtime_ns
                if self.holdings.stamps.get(file) != mtime_ns:
                    entries.append(Stamp(file, mtime_ns))
        self.ledger.append(entries)

    def _rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)
        sync_folder(new.parent)
        repoint(self.own / VIEWS, old, new)


def is_unchanged(place: Lies) -> bool:
    """Whether a file that lies elsewhere is what it was."""
    try:
        status = os.stat(place.at)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (place.size, place.mtime_ns)


def headers_in(folder: Path, listing: Listing) -> dict[str, Header]:
    """The headers of all files with weights, from a folder that has their first bytes.

    Raises:
        FetchError: One cannot be read, or is not the one that was listed.
    """
    return {
        file.path: parse_header(file, read_header(folder / file.path, file))
        for file in listing.files
        if file.holds_weights
    }


def pieces_in(folder: Path, listing: Listing) -> Pieces:
    """How a model's files are cut; as `headers_in`."""
    return Pieces(listing, headers_in(folder, listing))


def read_header(path: Path, file: ListedFile) -> bytes:
    """The first bytes of a file with weights, up to its first tensor.

    Raises:
        FetchError: They cannot be read, or it is no safetensors file.
    """
    try:
        with path.open("rb") as content:
            prefix = content.read(PREFIX_BYTES)
            return prefix + content.read(header_length(file, prefix) - PREFIX_BYTES)
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def writes(path: Path) -> Iterator[None]:
    """Turns what the system says about a file into our own errors.

    Raises:
        DiskFullError: There is no room.
        FetchError: It cannot be written or read.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"the disk of {path} is full: make room there and start again (what has been "
                "fetched is kept), or keep models elsewhere with TBCLUSTER_HOME"
            ) from error
        raise FetchError(f"{path} cannot be used: {error.strerror or error}") from error


def _lock(file: int, *, waits: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(path.name + ".new")
    number = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(number, content)
        sync(number)
    finally:
        os.close(number)
    os.replace(new, path)


def _changed_at(path: Path) -> float:
    with suppress(OSError):
        return (path / OWN_FOLDER / "listing.json").stat().st_mtime
    return 0.0
