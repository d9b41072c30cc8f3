"""Services of the system: an agent or a coordinator that starts with the machine and is kept
running. The file and the commands are shown first; nothing else on the machine changes."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tbcluster.cluster.service.caller import running_program, this_caller
from tbcluster.cluster.service.definition import ServiceKind, ServiceManager, ServiceState
from tbcluster.cluster.service.launchd import Launchd
from tbcluster.cluster.service.performing import SystemRunner
from tbcluster.cluster.service.services import Services
from tbcluster.cluster.service.systemd import Systemd
from tbcluster.errors import ServiceError

__all__ = ["ServiceKind", "ServiceState", "Services", "install", "rendered", "this_machine"]

# systemd makes this folder where it is in charge.
SYSTEMD_RUNS = Path("/run/systemd/system")


def this_machine(folder: Path | None = None) -> Services:
    """The services of this machine, for whoever runs this process (with sudo: who called it).

    Args:
        folder: The state folder; the caller's own if not given.

    Raises:
        ServiceError: tbcluster knows no services of this system.
    """
    caller = this_caller()
    if folder is not None:
        caller = replace(caller, state_folder=folder.absolute())
    manager: ServiceManager
    if sys.platform == "darwin":
        manager, is_managed = Launchd(), True
    elif sys.platform.startswith("linux"):
        manager, is_managed = Systemd(), SYSTEMD_RUNS.is_dir()
    else:
        raise ServiceError(f"tbcluster knows no services of {sys.platform}: macOS and Linux only")
    return Services(
        manager,
        caller,
        SystemRunner(),
        is_managed=is_managed,
        program=running_program(),
        folder=Path.cwd(),
    )


def rendered(kind: str, arguments: Sequence[str] = (), *, folder: Path) -> str:
    """The file and the commands of `install`, to be shown before.

    Raises:
        ServiceError: A path or argument cannot be part of a service.
    """
    services = this_machine(folder)
    return services.shown_install(services.service(ServiceKind(kind), arguments))


def install(kind: str, arguments: Sequence[str] = (), *, folder: Path) -> ServiceState:
    """Install `tbcluster agent` or `tbcluster serve` as a service with the state in `folder`, and
    start it. Without root, sudo asks for the password in the terminal.

    Raises:
        ServiceError: It cannot be installed; says what to do.
    """
    services = this_machine(folder)
    return services.install_through_sudo(services.service(ServiceKind(kind), arguments))
