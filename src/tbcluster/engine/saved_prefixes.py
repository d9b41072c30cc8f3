"""The coordinator's file about what the stages have on disk, so that prefixes survive a restart.

The stages' files hold KV caches by name; this one says which tokens each name stands for. It holds
what users wrote, so only its owner can read it. Format: a checksum, then one msgpack message.
"""

import fcntl
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Annotated

import msgspec

from tbcluster.engine.prefix_index import PrefixEntry
from tbcluster.errors import PrefixFolderError

logger = logging.getLogger(__name__)

_VERSION = 1
_FILE = "prefixes"
# A changed bit would be another token, and so another prompt's cache under this prompt.
_CHECKSUM_BYTES = 16

_NaturalNumber = Annotated[int, msgspec.Meta(ge=0)]
# Stages make file names of them: nothing else may come out of a file.
_NAME_PATTERN = r"\A[0-9a-f]{32}\Z"
_Name = Annotated[str, msgspec.Meta(pattern=_NAME_PATTERN)]


class _SavedPrefix(msgspec.Struct, frozen=True, array_like=True):
    name: _Name
    num_bytes: _NaturalNumber
    tokens: tuple[_NaturalNumber, ...]


class _Contents(msgspec.Struct, frozen=True):
    """`prefixes` are in order of being recorded, the oldest first."""

    version: int
    fingerprint: str
    prefixes: list[_SavedPrefix]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Contents)


def new_name() -> str:
    """A name for a prefix on the stages' disks: 32 hexadecimal characters, never used before."""
    return secrets.token_hex(16)


class _UnusableFileError(Exception):
    """The file is not this coordinator's list; never leaves this module."""


class SavedPrefixes:
    """The prefixes on the stages' disks, as the file says when opened and as recorded since.

    Changes are written by `flush`, and by `close`. After a crash in between, the file names caches
    that are gone, or lacks some that the stages still have. What cannot be read or written is
    logged and costs cached prefixes, never a request. `close` may come from another thread.

    Args:
        folder: Made if need be, and closed to other users.
        fingerprint: Of everything that must be equal for a cache to be valid: the model's weights,
            its cut, the format of the stages' files. A file with another one is not used.
        max_bytes: What the saved caches may take; keeping below it is the caller's part.

    Raises:
        PrefixFolderError: The folder cannot be used, or another coordinator uses it.
    """

    def __init__(self, folder: Path, fingerprint: str, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._folder = folder
        self._fingerprint = fingerprint
        self._lock: int | None = _lock(folder)
        self._entries: dict[str, PrefixEntry] = {}
        self._num_bytes: dict[str, int] = {}
        self._is_dirty = False
        self._use = threading.RLock()
        for prefix in self._read():
            self._entries[prefix.name] = PrefixEntry(prefix.tokens, None, prefix.name)
            self._num_bytes[prefix.name] = prefix.num_bytes

    @property
    def num_bytes(self) -> int:
        """What the saved caches take on the stages' disks, all stages together."""
        return sum(self._num_bytes.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each."""
        return tuple(self._entries)

    def num_bytes_of(self, name: str) -> int:
        """What is saved under this name takes, all stages together; 0 if there is nothing."""
        return self._num_bytes.get(name, 0)

    def entries(self) -> list[PrefixEntry]:
        """All that is saved, the one recorded longest ago first; always the same objects."""
        return list(self._entries.values())

    def record(self, entry: PrefixEntry, num_bytes: int) -> None:
        """Remember that the stages have saved an entry under its `saved_as`, in so many bytes all
        together; recorded again, it becomes the newest.

        Raises:
            ValueError: Its name is none that `new_name` makes.
        """
        name = entry.saved_as
        if name is None or not re.search(_NAME_PATTERN, name):
            raise ValueError(f"{name!r} is no name of a saved prefix: use new_name()")
        with self._use:
            self._discard(name)
            self._entries[name] = entry
            self._num_bytes[name] = num_bytes
            self._is_dirty = True

    def forget(self, names: Iterable[str]) -> None:
        """The stages have deleted, or lost, what was saved under these names, if anything was."""
        for name in names:
            self._discard(name)

    def flush(self) -> None:
        """Write the changes since the last time, if there are any. Takes as long as the disk does;
        what could not be written is tried again with the next change. Nothing once closed."""
        with self._use:
            if self._is_dirty and self._lock is not None:
                self._is_dirty = False
                self._write()

    def close(self) -> None:
        """Flush, and let another coordinator have the folder; later changes are not written."""
        with self._use:
            self.flush()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _discard(self, name: str) -> None:
        with self._use:
            if self._entries.pop(name, None) is not None:
                del self._num_bytes[name]
                self._is_dirty = True

    def _read(self) -> list[_SavedPrefix]:
        path = self._folder / _FILE
        try:
            contents = _decode(path.read_bytes())
            if contents.fingerprint != self._fingerprint:
                raise _UnusableFileError("it is about another model or another cut of it")
        except FileNotFoundError:
            return []
        except (OSError, _UnusableFileError) as error:
            logger.warning("starting without saved prefixes, %s cannot be used: %s", path, error)
            return []
        return contents.prefixes

    def _write(self) -> None:
        prefixes = [
            _SavedPrefix(name, self._num_bytes[name], entry.tokens)
            for name, entry in self._entries.items()
        ]
        data = _encode(_Contents(_VERSION, self._fingerprint, prefixes))
        try:
            _replace(self._folder / _FILE, data)
        except OSError as error:
            logger.warning("the list of saved prefixes could not be written: %s", error)


def _lock(folder: Path) -> int:
    """A descriptor that keeps other coordinators away from the folder until it is closed."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise PrefixFolderError(
            f"the folder for saved prefixes cannot be used ({error}): name another one"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise PrefixFolderError(_why_not_locked(folder, error)) from error
    return descriptor


def _why_not_locked(folder: Path, error: OSError) -> str:
    if isinstance(error, BlockingIOError):
        return f"another tbcluster saves its prefixes in {folder}: end it, or name another folder"
    return f"the folder {folder} cannot be locked ({error}): name one on a local disk"


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that, whatever happens, it is the old or the new one, whole."""
    temporary = path.with_suffix(".tmp")
    # Left over from a coordinator that was killed; a new one starts with the right mode.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


def _checksum(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=_CHECKSUM_BYTES).digest()


def _encode(contents: _Contents) -> bytes:
    payload = _encoder.encode(contents)
    return _checksum(payload) + payload


def _decode(data: bytes) -> _Contents:
    checksum, payload = data[:_CHECKSUM_BYTES], data[_CHECKSUM_BYTES:]
    if checksum != _checksum(payload):
        raise _UnusableFileError("it is damaged")
    try:
        contents = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _UnusableFileError(f"it is not a list of prefixes ({error})") from error
    if contents.version != _VERSION:
        raise _UnusableFileError(f"its format is {contents.version}, not {_VERSION}")
    return contents
