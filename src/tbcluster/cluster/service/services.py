"""The services of this machine: shown, installed, removed and asked."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from tbcluster.cluster.service.caller import Caller
from tbcluster.cluster.service.definition import (
    AGENT_STOP_S,
    DEFAULT_DRAIN_S,
    SERVE_STOP_S,
    LastSeen,
    Service,
    ServiceKind,
    ServiceManager,
    ServiceState,
)
from tbcluster.cluster.service.performing import Runner, perform
from tbcluster.errors import ServiceError


class Services:
    """tbcluster's services on this machine, for one caller.

    Args:
        is_managed: Whether the service manager runs here; without it services can only be shown.
        program: The `tbcluster` that they run.
        folder: Where relative paths among a service's arguments begin.
    """

    def __init__(
        self,
        manager: ServiceManager,
        caller: Caller,
        runner: Runner,
        *,
        is_managed: bool,
        program: tuple[str, ...],
        folder: Path,
    ) -> None:
        self.caller = caller
        self._manager = manager
        self._runner = runner
        self._is_managed = is_managed
        self._program = program
        self._folder = folder

    def service(
        self, kind: ServiceKind, arguments: Sequence[str] = (), drain_s: float = DEFAULT_DRAIN_S
    ) -> Service:
        """What would be installed.

        Args:
            arguments: What follows `tbcluster agent` or `tbcluster serve`.
            drain_s: How long `serve` lets its answers finish.

        Raises:
            ServiceError: A path or argument cannot be part of a service.
        """
        service = Service(
            kind=kind,
            program=(*self._program, str(kind), *arguments),
            user=self.caller.user,
            home=self.caller.home,
            state_folder=self.caller.state_folder,
            working_folder=self._folder if arguments else self.caller.home,
            stop_s=AGENT_STOP_S if kind is ServiceKind.AGENT else drain_s + SERVE_STOP_S,
        )
        service.check()
        return service

    def shown_install(self, service: Service) -> str:
        """The file and the commands of `install`, and what may be in the way, as text."""
        steps = "\n".join(f"  {step}" for step in self._manager.install(service))
        notes = "".join(f"\nNote: {note}." for note in self._manager.notes(service))
        return (
            f"{self._manager.path(service.kind)}:\n\n"
            f"{self._manager.definition(service).decode()}\nThen, as root:\n\n{steps}\n{notes}"
        ).rstrip("\n")

    def shown_uninstall(self, kind: ServiceKind) -> str:
        """The commands of `uninstall`, as text."""
        return "\n".join(f"  {step}" for step in self._manager.uninstall(kind))

    def install(self, service: Service) -> ServiceState:
        """Install the service and start it; again, if it is there.

        Raises:
            ServiceError: This process is not root's, there is no service manager, or a step failed.
        """
        self.require_root(service)
        perform(self._manager.install(service), self._runner)
        return self.state(service.kind)

    def install_through_sudo(self, service: Service) -> ServiceState:
        """As `install`; without root, sudo asks for the password in the terminal.

        Raises:
            ServiceError: As `install`, or sudo has not let the caller.
        """
        if self.caller.is_root:
            return self.install(service)
        self.require_manager()
        if self._runner.run_in_terminal(self._install_line(service, is_agreed=True)) != 0:
            line = shlex.join(self._install_line(service))
            raise ServiceError(
                f"the service is not installed: run\n  {line}\nas a user who may use sudo"
            )
        return self.state(service.kind)

    def uninstall(self, kind: ServiceKind) -> ServiceState:
        """Stop the service and remove its definition; nothing else is touched.

        Raises:
            ServiceError: This process is not root's, there is no service manager, or a step failed.
        """
        self.require_root(kind)
        perform(self._manager.uninstall(kind), self._runner)
        return self.state(kind)

    def state(self, kind: ServiceKind) -> ServiceState:
        """How it stands with a service.

        Raises:
            ServiceError: There is no service manager, or it cannot be asked.
        """
        self.require_manager()
        ran = self._runner.run(self._manager.question(kind))
        seen = self._manager.answer(ran.output) if ran.status == 0 else LastSeen()
        path = self._manager.path(kind)
        return ServiceState(
            kind=kind,
            is_installed=path.exists(),
            is_running=seen.pid is not None,
            pid=seen.pid,
            last_exit=seen.last_exit,
            definition=str(path),
            log=shlex.join(self._manager.log(kind, self.caller.home)),
        )

    def _install_line(self, service: Service, *, is_agreed: bool = False) -> tuple[str, ...]:
        """What the caller has to type; sudo drops their environment. Once they have agreed to what
        they were shown, it is not shown again."""
        folder = self.caller.state_folder
        is_default = folder == self.caller.default_folder
        environment = () if is_default else ("env", f"TBCLUSTER_HOME={folder}")
        options = ("--yes", "--quiet") if is_agreed else ()
        arguments = service.program[len(self._program) + 1 :]
        command = (*self._program, "service", "install", *options, str(service.kind), *arguments)
        return ("sudo", *environment, *command)

    def require_manager(self) -> None:
        """Raises: ServiceError where nothing can be installed; says what to do instead."""
        if not self._is_managed:
            raise ServiceError(
                f"{self._manager.name} does not run here: start `tbcluster agent` or `tbcluster "
                "serve` by whatever starts services on this machine"
            )

    def require_root(self, wanted: Service | ServiceKind) -> None:
        """Raises: ServiceError unless this process may install `wanted`, or remove it if that is
        a kind; says what to type."""
        self.require_manager()
        if not self.caller.is_root:
            line = (
                self._install_line(wanted)
                if isinstance(wanted, Service)
                else ("sudo", *self._program, "service", "uninstall", str(wanted))
            )
            raise ServiceError(
                f"services belong to the system, which takes root: run\n  {shlex.join(line)}"
            )
