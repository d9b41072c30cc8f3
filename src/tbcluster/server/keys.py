"""API keys: a file of hashes, and the ring of those that are valid now."""

import fcntl
import hmac
import json
import logging
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from tbcluster.errors import KeyFileError

logger = logging.getLogger(__name__)

PREFIX = "tbc-"
SECRET_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
MAX_PER_MINUTE = 10**9
# A changed file is seen this long after, at the latest.
RELOAD_S = 1.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key.

    Attributes:
        sha256: Hash of the key, in hexadecimal. A key is 256 random bits, which no one can guess
            however fast the hash is: a slow one, made for passwords, would only cost time.
        created: Day it was made, UTC, as YYYY-MM-DD.
        requests_per_minute, tokens_per_minute: None for no limit.
    """

    name: str
    sha256: str
    created: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class KeyFile:
    """Keys on disk, readable by their owner alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[ApiKey, ...]:
        """All keys; none where there is no file.

        Raises:
            KeyFileError: The file is open to others, cannot be read or is none of ours.
        """
        try:
            with self.path.open("rb") as file:
                self._check_mode(os.fstat(file.fileno()).st_mode)
                content = file.read()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeyFileError(f"{self.path} cannot be read: {error.strerror}") from error
        return self._parse(content)

    def version(self) -> tuple[int, ...] | None:
        """Differs once the file has changed; None where there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode)

    def add(
        self,
        name: str,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> str:
        """Make a key and return it; it cannot be shown again.

        Raises:
            KeyFileError: The name is taken or malformed, or the file cannot be used.
        """
        if NAME.fullmatch(name) is None:
            raise KeyFileError(
                f"{name!r} is no name for a key: use up to 64 of A-Z a-z 0-9 . _ @ -"
            )
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        today = time.strftime("%Y-%m-%d", time.gmtime())
        key = ApiKey(name, digest(secret), today, requests_per_minute, tokens_per_minute)
        with self._locked():
            keys = self.load()
            if any(known.name == name for known in keys):
                raise KeyFileError(f"there is a key {name!r} already: revoke it first")
            self._save((*keys, key))
        return secret

    def revoke(self, name: str) -> None:
        """Make a key invalid.

        Raises:
            KeyFileError: There is none of this name, or the file cannot be used.
        """
        with self._locked():
            keys = self.load()
            left = tuple(key for key in keys if key.name != name)
            if len(left) == len(keys):
                names = ", ".join(key.name for key in keys) or "none"
                raise KeyFileError(f"there is no key {name!r}: there are {names}")
            self._save(left)

    def _check_mode(self, mode: int) -> None:
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyFileError(
                f"{self.path} has mode {stat.S_IMODE(mode):04o}, other users can read or change "
                f"it: run `chmod 600 '{self.path}'`"
            )

    def _parse(self, content: bytes) -> tuple[ApiKey, ...]:
        try:
            return tuple(_key(entry) for entry in json.loads(content)["keys"])
        except (ValueError, TypeError, KeyError) as error:
            raise KeyFileError(
                f"{self.path} is no file of keys ({type(error).__name__}: {error}): repair it, or "
                "remove it and add the keys again"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise KeyFileError(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _save(self, keys: tuple[ApiKey, ...]) -> None:
        """Replace the file at once: a reader sees the old keys or the new ones."""
        content = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2)
        try:
            # mkstemp's files are their owner's alone.
            number, name = tempfile.mkstemp(prefix=self.path.name, dir=self.path.parent)
            try:
                with os.fdopen(number, "w", encoding="utf-8") as file:
                    file.write(f"{content}\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self.path)
            except BaseException:
                os.unlink(name)
                raise
        except OSError as error:
            raise KeyFileError(f"{self.path} cannot be written: {error.strerror}") from error


class KeyRing:
    """The keys that are valid now; follows changes of their file.

    Raises (from the constructor):
        KeyFileError: As `KeyFile.load`.
    """

    def __init__(self, file: KeyFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._version = file.version()
        self._looked_at = clock()
        self.keys = file.load()

    def find(self, secret: str) -> ApiKey | None:
        """The key that this is, or None."""
        self._follow()
        wanted = digest(secret)
        found = None
        for key in self.keys:
            # All are compared, each in constant time: how long it takes tells nothing.
            if hmac.compare_digest(key.sha256, wanted):
                found = key
        return found

    def _follow(self) -> None:
        now = self._clock()
        if now - self._looked_at < RELOAD_S:
            return
        self._looked_at = now
        version = self._file.version()
        if version == self._version:
            return
        self._version = version
        try:
            self.keys = self._file.load()
        except KeyFileError as error:
            logger.error("%s; the keys from before stay valid", error)


def digest(secret: str) -> str:
    """What is kept of a key."""
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _key(entry: dict[str, Any]) -> ApiKey:
    """Raises: TypeError, KeyError or ValueError when it is none."""
    key = ApiKey(**entry)
    if not isinstance(key.name, str) or NAME.fullmatch(key.name) is None:
        raise ValueError(f"{key.name!r} is no name")
    if not isinstance(key.sha256, str) or re.fullmatch(r"[0-9a-f]{64}", key.sha256) is None:
        raise ValueError(f"the hash of {key.name!r} is malformed")
    for limit in (key.requests_per_minute, key.tokens_per_minute):
        if limit is not None and not (type(limit) is int and 0 < limit <= MAX_PER_MINUTE):
            raise ValueError(f"{limit!r} is no limit per minute")
    return replace(key, created=str(key.created))
