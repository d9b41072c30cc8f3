"""The single steps of installing and removing a service: data, and as a person would type them."""

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Write:
    """A file, made or replaced; root's, and readable by everyone."""

    path: Path
    content: bytes

    def __str__(self) -> str:
        return f"write {shlex.quote(str(self.path))}, as above"


@dataclass(frozen=True, slots=True)
class Remove:
    """A file, if it is there."""

    path: Path

    def __str__(self) -> str:
        return shlex.join(["rm", "-f", str(self.path)])


@dataclass(frozen=True, slots=True)
class Run:
    """A command; `may_fail` where failing means that there was nothing to do."""

    command: tuple[str, ...]
    may_fail: bool = False

    def __str__(self) -> str:
        return shlex.join(self.command)


@dataclass(frozen=True, slots=True)
class WaitUntilFails:
    """A command that succeeds for as long as something is there, repeated until it is gone."""

    command: tuple[str, ...]
    timeout_s: float

    def __str__(self) -> str:
        return f"while {shlex.join(self.command)} >/dev/null 2>&1; do sleep 1; done"


Step = Write | Remove | Run | WaitUntilFails
