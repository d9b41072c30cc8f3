"""Who asks for a service, and which program they run."""

import os
import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tbcluster.errors import ServiceError
from tbcluster.hardware.folders import config_folder


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose service it becomes: with sudo not root, but who called it, so that files stay theirs.

    Attributes:
        state_folder: Where tbcluster keeps their settings.
        default_folder: Where it would without TBCLUSTER_HOME and the like.
    """

    user: str
    home: Path
    is_root: bool
    state_folder: Path
    default_folder: Path


def this_caller(
    environ: Mapping[str, str] = os.environ,
    user_id: int | None = None,
    platform: str = sys.platform,
) -> Caller:
    """The caller by the user id of this process (or the one given) and SUDO_USER.

    Raises:
        ServiceError: This system does not know the user.
    """
    user_id = os.geteuid() if user_id is None else user_id
    is_root = user_id == 0
    name = environ.get("SUDO_USER") if is_root else None
    try:
        entry = pwd.getpwnam(name) if name else pwd.getpwuid(user_id)
    except KeyError as error:
        raise ServiceError(f"this system knows no user {name or user_id}") from error
    home = Path(entry.pw_dir)
    return Caller(
        user=entry.pw_name,
        home=home,
        is_root=is_root,
        state_folder=config_folder(platform, environ, home),
        default_folder=config_folder(platform, {}, home),
    )


def running_program(argv0: str | None = None, python: str = sys.executable) -> tuple[str, ...]:
    """The `tbcluster` that runs now, by its absolute path: the command if it was started by that,
    else the module. A link is not followed: where it points may change with an upgrade."""
    command = Path(sys.argv[0] if argv0 is None else argv0).absolute()
    if command.name == "tbcluster" and os.access(command, os.X_OK) and command.is_file():
        return (os.path.normpath(command),)
    # -P: nothing in the working folder may stand in for a module.
    return (os.path.abspath(python), "-P", "-m", "tbcluster")
