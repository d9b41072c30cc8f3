"""Services of macOS: LaunchDaemons. Pure: property lists and the commands around them.

Not LaunchAgents: macOS keeps a user's own agents that run Python from the local network until
someone clicks that away (Local Network privacy), and starts them only at login.
"""

import math
import plistlib
import re
from pathlib import Path

from tbcluster.cluster.service.definition import LastSeen, Service, ServiceKind
from tbcluster.cluster.service.steps import Remove, Run, Step, WaitUntilFails, Write

FOLDER = Path("/Library/LaunchDaemons")
# From one start to the next, at least: what lived longer starts again at once.
THROTTLE_S = 5
# The longest that a service may take to end, whatever definition it was started with.
GONE_S = 300.0
# Folders of which macOS asks the user at the screen before a program may read them.
PRIVATE_FOLDERS = ("Desktop", "Documents", "Downloads", "Library/Mobile Documents")


class Launchd:
    """macOS's service manager."""

    name = "launchd"

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def path(self, kind: ServiceKind) -> Path:
        """Where the definition is kept."""
        return self._folder / f"{label(kind)}.plist"

    def definition(self, service: Service) -> bytes:
        """The property list."""
        log = str(_log(service.kind, service.home))
        return plistlib.dumps(
            {
                "Label": label(service.kind),
                "ProgramArguments": list(service.program),
                "UserName": service.user,
                "EnvironmentVariables": service.environment(),
                "WorkingDirectory": str(service.working_folder),
                "RunAtLoad": True,
                "KeepAlive": True,
                # The others, and none at all, have the GPU throttled: a tenth of the tokens.
                "ProcessType": "Interactive",
                "ThrottleInterval": THROTTLE_S,
                "ExitTimeOut": math.ceil(service.stop_s),
                "StandardOutPath": log,
                "StandardErrorPath": log,
            },
            sort_keys=False,
        )

    def install(self, service: Service) -> tuple[Step, ...]:
        """Write the definition and (re)start the service."""
        path = self.path(service.kind)
        return (
            Write(path, self.definition(service)),
            *_boot_out(service.kind),
            # `launchctl disable` may have been used once, which outlives the definition.
            Run(("launchctl", "enable", target(service.kind))),
            Run(("launchctl", "bootstrap", "system", str(path))),
        )

    def uninstall(self, kind: ServiceKind) -> tuple[Step, ...]:
        """Stop the service and remove its definition."""
        return (*_boot_out(kind), Remove(self.path(kind)))

    def question(self, kind: ServiceKind) -> tuple[str, ...]:
        """The command that tells how it stands with the service."""
        return ("launchctl", "print", target(kind))

    def answer(self, output: str) -> LastSeen:
        """What `question` has printed: the fields of the service itself are indented once, those
        of its parts deeper."""
        said = dict(re.findall(r"^\t(\w[^=\n]*?) = (.*)$", output, re.MULTILINE))
        return LastSeen(_number(said.get("pid")), _number(said.get("last exit code")))

    def log(self, kind: ServiceKind, home: Path) -> tuple[str, ...]:
        """The command that shows what the service says."""
        return ("tail", "-n", "50", str(_log(kind, home)))

    def notes(self, service: Service) -> tuple[str, ...]:
        """What may keep the service from running, in words."""
        private = [service.home / name for name in PRIVATE_FOLDERS] + [Path("/Volumes")]
        return tuple(
            f"{text} lies in {folder}, which macOS may close to services: move it elsewhere, or "
            "give Python Full Disk Access (System Settings > Privacy & Security)"
            for text in dict.fromkeys(
                (*service.program, str(service.state_folder), str(service.working_folder))
            )
            for folder in private
            if Path(text).is_relative_to(folder)
        )


def label(kind: ServiceKind) -> str:
    """The service's name to launchd."""
    return f"io.tbcluster.{kind}"


def target(kind: ServiceKind) -> str:
    """The service among those of the whole system."""
    return f"system/{label(kind)}"


def _boot_out(kind: ServiceKind) -> tuple[Step, ...]:
    # launchd caches definitions, so a changed one needs `bootout` first. That returns before the
    # process has ended, and until then `bootstrap` fails with "5: Input/output error".
    return (
        Run(("launchctl", "bootout", target(kind)), may_fail=True),
        WaitUntilFails(("launchctl", "print", target(kind)), GONE_S),
    )


def _log(kind: ServiceKind, home: Path) -> Path:
    return home / "Library" / "Logs" / f"tbcluster-{kind}.log"


def _number(text: str | None) -> int | None:
    """launchd writes "(never exited)" and "78: EX_CONFIG" too."""
    found = re.match(r"-?\d+", text or "")
    return int(found[0]) if found else None
