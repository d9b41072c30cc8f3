"""Services of Linux: systemd's system units. Pure: unit files and the commands around them."""

import math
import re
from pathlib import Path

from tbcluster.cluster.service.definition import (
    DESCRIPTIONS,
    LastSeen,
    Service,
    ServiceKind,
)
from tbcluster.cluster.service.steps import Remove, Run, Step, Write

FOLDER = Path("/etc/systemd/system")
PROPERTIES = ("MainPID", "ExecMainStatus", "ExecMainExitTimestampMonotonic")
UNIT = """\
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target
# It never gives up: what is missing now may be there later.
StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
WorkingDirectory={working_folder}
Environment={environment}
ExecStart={command}
Restart=always
RestartSec=1
KillMode=mixed
TimeoutStopSec={stop_s}
# No PrivateTmp: agent and coordinator meet at sockets in /tmp. No limits on executable memory:
# MLX compiles kernels.
NoNewPrivileges=yes
ProtectSystem=full
ProtectControlGroups=yes
RestrictSUIDSGID=yes

[Install]
WantedBy=multi-user.target
"""


class Systemd:
    """Linux's service manager."""

    name = "systemd"

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def path(self, kind: ServiceKind) -> Path:
        """Where the definition is kept."""
        return self._folder / unit(kind)

    def definition(self, service: Service) -> bytes:
        """The unit file."""
        program = service.program
        # The one place where systemd takes no quotes, even escaped.
        if re.search(r"[\"'\\]", program[0]):
            program = ("/usr/bin/env", *program)
        # The colon keeps systemd from replacing $ in the arguments.
        command = [f'"{_escaped(text)}"' for text in (f":{program[0]}", *program[1:])]
        environment = [f'"{_escaped(f"{k}={v}")}"' for k, v in service.environment().items()]
        return UNIT.format(
            description=DESCRIPTIONS[service.kind],
            user=service.user,
            # Taken as it stands, but for the percent sign.
            working_folder=str(service.working_folder).replace("%", "%%"),
            environment=" ".join(environment),
            command=" ".join(command),
            stop_s=math.ceil(service.stop_s),
        ).encode()

    def install(self, service: Service) -> tuple[Step, ...]:
        """Write the definition and (re)start the service."""
        name = unit(service.kind)
        return (
            Write(self.path(service.kind), self.definition(service)),
            Run(("systemctl", "daemon-reload")),
            Run(("systemctl", "enable", name)),
            Run(("systemctl", "restart", name)),
        )

    def uninstall(self, kind: ServiceKind) -> tuple[Step, ...]:
        """Stop the service and remove its definition."""
        return (
            Run(("systemctl", "disable", "--now", unit(kind)), may_fail=True),
            Remove(self.path(kind)),
            Run(("systemctl", "daemon-reload")),
            Run(("systemctl", "reset-failed", unit(kind)), may_fail=True),
        )

    def question(self, kind: ServiceKind) -> tuple[str, ...]:
        """The command that tells how it stands with the service."""
        return ("systemctl", "show", unit(kind), f"--property={','.join(PROPERTIES)}")

    def answer(self, output: str) -> LastSeen:
        """What `question` has printed."""
        said = dict(re.findall(r"^(\w+)=(\d+)$", output, re.MULTILINE))
        numbers = {name: int(text) for name, text in said.items()}
        # The exit status is 0, too, of what has never ended.
        has_ended = numbers.get("ExecMainExitTimestampMonotonic", 0) > 0
        return LastSeen(
            pid=numbers.get("MainPID") or None,
            last_exit=numbers.get("ExecMainStatus") if has_ended else None,
        )

    def log(self, kind: ServiceKind, home: Path) -> tuple[str, ...]:
        """The command that shows what the service says."""
        return ("journalctl", "-u", unit(kind), "-n", "50")

    def notes(self, service: Service) -> tuple[str, ...]:
        """What may keep the service from running: nothing that is known beforehand."""
        return ()


def unit(kind: ServiceKind) -> str:
    """The service's name to systemd."""
    return f"tbcluster-{kind}.service"


def _escaped(text: str) -> str:
    """For the inside of double quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
