"""Carrying out the steps: files and commands, one after the other."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from tbcluster.cluster.service.steps import Remove, Run, Step, WaitUntilFails, Write
from tbcluster.errors import ServiceError

# sudo may keep the caller's own PATH; what runs as root is the system's.
SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/run/current-system/sw/bin"
# systemd waits for a service that it stops, and that may take as long as a drain.
COMMAND_TIMEOUT_S = 600.0
POLL_S = 0.5


class Ran(NamedTuple):
    """How a command ended: exit status, and what it printed on either output."""

    status: int
    output: str


class Runner(Protocol):
    """What starts commands."""

    def run(self, command: Sequence[str]) -> Ran:
        """Run a command of the system. Raises: ServiceError if it cannot be started or does not
        end."""

    def run_in_terminal(self, command: Sequence[str]) -> int:
        """Run a command that may ask its user something; its exit status."""


class SystemRunner:
    """Starts real processes."""

    def run(self, command: Sequence[str]) -> Ran:
        """Run a command without input, its outputs taken together."""
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
                env={"PATH": SYSTEM_PATH, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceError(f"`{Run(tuple(command))}` failed: {error}") from error
        return Ran(done.returncode, done.stdout.decode(errors="replace").strip())

    def run_in_terminal(self, command: Sequence[str]) -> int:
        """Run a command with this process's own input and outputs."""
        try:
            return subprocess.run(command, check=False).returncode
        except OSError as error:
            raise ServiceError(f"`{Run(tuple(command))}` failed: {error}") from error


def perform(
    steps: Sequence[Step],
    runner: Runner,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Carry out the steps in their order; the first one that fails ends it.

    Raises:
        ServiceError: A step failed; says which, and what the system said.
    """
    for step in steps:
        match step:
            case Write(path, content):
                _write(path, content)
            case Remove(path):
                _remove(path)
            case Run(command, may_fail):
                ran = runner.run(command)
                if ran.status and not may_fail:
                    raise ServiceError(f"`{step}` failed (exit {ran.status}): {ran.output}")
            case WaitUntilFails(command, timeout_s):
                deadline = clock() + timeout_s
                while runner.run(command).status == 0:
                    if clock() > deadline:
                        raise ServiceError(
                            f"the service has not ended within {timeout_s:g} s: end its process "
                            "by hand and try again"
                        )
                    sleep(POLL_S)


def _write(path: Path, content: bytes) -> None:
    """Replace the file at once: what reads it sees the old one or the new one."""
    try:
        number, name = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(content)
                # Service managers refuse what others could change.
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
    except OSError as error:
        raise ServiceError(f"{path} cannot be written: {error.strerror}") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ServiceError(f"{path} cannot be removed: {error.strerror}") from error
