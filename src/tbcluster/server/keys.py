"""API keys: a file of hashes, and the ring of those that are valid now."""

import hmac
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from tbcluster.errors import KeyFileError
from tbcluster.hardware.followed import Followed
from tbcluster.hardware.private_file import PrivateFile

PREFIX = "tbc-"
SECRET_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
MAX_PER_MINUTE = 10**9


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
        self._file = PrivateFile(path, KeyFileError)

    def load(self) -> tuple[ApiKey, ...]:
        """All keys; none where there is no file.

        Raises:
            KeyFileError: The file is open to others, cannot be read or is none of ours.
        """
        content = self._file.read()
        return () if content is None else self._parse(content)

    def version(self) -> tuple[int, ...] | None:
        """Differs once the file has changed; None where there is none."""
        return self._file.version()

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
        with self._file.locked():
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
        with self._file.locked():
            keys = self.load()
            left = tuple(key for key in keys if key.name != name)
            if len(left) == len(keys):
                names = ", ".join(key.name for key in keys) or "none"
                raise KeyFileError(f"there is no key {name!r}: there are {names}")
            self._save(left)

    def _parse(self, content: bytes) -> tuple[ApiKey, ...]:
        try:
            return tuple(_key(entry) for entry in json.loads(content)["keys"])
        except (ValueError, TypeError, KeyError) as error:
            raise KeyFileError(
                f"{self.path} is no file of keys ({type(error).__name__}: {error}): repair it, or "
                "remove it and add the keys again"
            ) from error

    def _save(self, keys: tuple[ApiKey, ...]) -> None:
        content = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2)
        self._file.replace(f"{content}\n".encode())


class KeyRing:
    """The keys that are valid now; follows changes of their file.

    Raises (from the constructor):
        KeyFileError: As `KeyFile.load`.
    """

    def __init__(self, file: KeyFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = Followed(file.load, file.version, "the keys from before", clock)

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """All of them."""
        return self._keys.now()

    def find(self, secret: str) -> ApiKey | None:
        """The key that this is, or None."""
        wanted = digest(secret)
        found = None
        for key in self.keys:
            # All are compared, each in constant time: how long it takes tells nothing.
            if hmac.compare_digest(key.sha256, wanted):
                found = key
        return found


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
