"""A file that its owner alone can read: checked when read, replaced whole, by one at a time."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tbcluster.errors import TbclusterError


class PrivateFile:
    """Secrets on disk, mode 0600, in a folder that is made with mode 0700.

    Whatever goes wrong is raised as `error`: the file is open to others, or cannot be read or
    written.
    """

    def __init__(self, path: Path, error: type[TbclusterError]) -> None:
        self.path = path
        self._error = error

    def read(self) -> bytes | None:
        """What it holds; None where there is no file."""
        try:
            with self.path.open("rb") as file:
                self._check_mode(os.fstat(file.fileno()).st_mode)
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(f"{self.path} cannot be read: {error.strerror}") from error

    def version(self) -> tuple[int, ...] | None:
        """Differs once the file has changed; None where there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time, of all threads and processes."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW
            lock = os.open(f"{self.path}.lock", flags, 0o600)
        except OSError as error:
            raise self._error(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def replace(self, content: bytes) -> None:
        """Replace the file at once, also across a power cut: a reader sees the old content or the
        new one."""
        try:
            # mkstemp's files are their owner's alone.
            number, name = tempfile.mkstemp(prefix=self.path.name, dir=self.path.parent)
            try:
                with os.fdopen(number, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self.path)
            except BaseException:
                os.unlink(name)
                raise
            _sync_folder(self.path.parent)
        except OSError as error:
            raise self._error(f"{self.path} cannot be written: {error.strerror}") from error

    def _check_mode(self, mode: int) -> None:
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise self._error(
                f"{self.path} has mode {stat.S_IMODE(mode):04o}, other users can read or change "
                f"it: run `chmod 600 '{self.path}'`"
            )


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
