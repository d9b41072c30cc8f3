"""One agent for each state folder."""

import fcntl
import os
import shutil
from pathlib import Path

import msgspec

from tbcluster.errors import RackError


class _Holder(msgspec.Struct, frozen=True):
    pid: int
    run_dir: str


class AgentLock:
    """Held until `release`, or until the process is gone, however it ends.

    Raises:
        RackError: Another agent runs, or the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "agent.lock"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise RackError(f"{self._path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = self._read()
            os.close(self._file)
            who = f", process {holder.pid}" if holder is not None else ""
            raise RackError(
                f"an agent runs already{who}, with the keys in {folder}: end it first, or give "
                "this one a folder of its own with TBCLUSTER_HOME"
            ) from error

    def take_over(self, run_dir: Path) -> None:
        """Write down who holds it and where its workers' sockets are; those of a holder that was
        killed are removed."""
        before = self._read()
        if before is not None and before.run_dir:
            shutil.rmtree(before.run_dir, ignore_errors=True)
        self._write(_Holder(os.getpid(), str(run_dir)))

    def release(self) -> None:
        """Let another agent run."""
        self._write(_Holder(os.getpid(), ""))
        os.close(self._file)

    def _read(self) -> _Holder | None:
        try:
            return msgspec.json.decode(os.pread(self._file, 4096, 0), type=_Holder)
        except (OSError, msgspec.DecodeError):
            return None  # new, or not written whole

    def _write(self, holder: _Holder) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, msgspec.json.encode(holder), 0)


def runs_agent(folder: Path) -> bool:
    """Whether an agent with this state folder runs now."""
    try:
        file = os.open(folder / "agent.lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False
