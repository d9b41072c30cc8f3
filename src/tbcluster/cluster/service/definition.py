"""What a service of the system runs, as whom and where. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from tbcluster.cluster.service.steps import Step
from tbcluster.errors import ServiceError

# What neither a property list nor a unit file can hold.
UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
AGENT_STOP_S = 20.0
# What `serve` needs after its answers are finished or cut off: its stages end.
SERVE_STOP_S = 15.0
DEFAULT_DRAIN_S = 30.0


class ServiceKind(StrEnum):
    """What can be a service."""

    AGENT = "agent"
    SERVE = "serve"


DESCRIPTIONS = {
    ServiceKind.AGENT: "tbcluster agent: runs stages of models on this machine",
    ServiceKind.SERVE: "tbcluster serve: the coordinator and its HTTP endpoint",
}


@dataclass(frozen=True, slots=True)
class Service:
    """What runs.

    Attributes:
        program: Absolute path of the executable, and its arguments.
        user: Whose process it is, by name.
        state_folder: TBCLUSTER_HOME.
        working_folder: Where relative paths among the arguments begin.
        stop_s: How long it may take to end when it is told to.
    """

    kind: ServiceKind
    program: tuple[str, ...]
    user: str
    home: Path
    state_folder: Path
    working_folder: Path
    stop_s: float

    def environment(self) -> dict[str, str]:
        """What is set for it; the rest is the system's own."""
        return {"HOME": str(self.home), "TBCLUSTER_HOME": str(self.state_folder)}

    def check(self) -> None:
        """Raises: ServiceError for what cannot be written into a definition."""
        for text in self._texts():
            if UNWRITABLE.search(text) or text != text.rstrip(" \\"):
                raise ServiceError(
                    f"{text!r} cannot be part of a service: it has control characters, bytes that "
                    "are no text, or a blank or backslash at its end. Rename it"
                )
        for path in (self.program[0], *map(str, (self.home, self.state_folder))):
            if not path.startswith("/"):
                raise ServiceError(f"{path!r} is no absolute path, as a service needs")

    def _texts(self) -> Iterator[str]:
        yield from self.program
        yield self.user
        yield from map(str, (self.home, self.state_folder, self.working_folder))


@dataclass(frozen=True, slots=True)
class LastSeen:
    """What the service manager says of a service's process.

    Attributes:
        pid: None while it does not run.
        last_exit: Exit status of its last run; None if it has not ended yet, or nobody knows.
    """

    pid: int | None = None
    last_exit: int | None = None


@dataclass(frozen=True, slots=True)
class ServiceState:
    """How it stands with a service.

    Attributes:
        pid, last_exit: As in `LastSeen`.
        definition: Path of its definition, whether it is there or not.
        log: The command that shows what it says.
    """

    kind: ServiceKind
    is_installed: bool
    is_running: bool
    pid: int | None
    last_exit: int | None
    definition: str
    log: str


class ServiceManager(Protocol):
    """The part of a system that keeps services running; pure."""

    name: str

    def path(self, kind: ServiceKind) -> Path:
        """Where the definition is kept."""

    def definition(self, service: Service) -> bytes:
        """What is kept there."""

    def install(self, service: Service) -> tuple[Step, ...]:
        """Write the definition and start the service, or start it again if it runs."""

    def uninstall(self, kind: ServiceKind) -> tuple[Step, ...]:
        """Stop the service and remove its definition."""

    def question(self, kind: ServiceKind) -> tuple[str, ...]:
        """The command that tells how it stands with the service."""

    def answer(self, output: str) -> LastSeen:
        """What `question` has printed, if it succeeded; launchd's fails for a service that is not
        there."""

    def log(self, kind: ServiceKind, home: Path) -> tuple[str, ...]:
        """The command that shows what the service says."""

    def notes(self, service: Service) -> tuple[str, ...]:
        """What may keep the service from running, in words."""
