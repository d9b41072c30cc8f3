"""Services of the system: an agent or a coordinator that starts with the machine and is kept
running. The file and the commands are shown first; nothing else on the machine changes."""

import sys
from dataclasses import replace
from pathlib import Path

from tbcluster.cluster.service.caller import running_program, this_caller
from tbcluster.cluster.service.definition import ServiceKind, ServiceManager, ServiceState
from tbcluster.cluster.service.launchd import Launchd
from tbcluster.cluster.service.performing import SystemRunner
from tbcluster.cluster.service.services import Services
from tbcluster.cluster.service.systemd import Systemd
from tbcluster.errors import ServiceError

__all__ = ["ServiceKind", "ServiceState", "Services", "this_machine"]

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
