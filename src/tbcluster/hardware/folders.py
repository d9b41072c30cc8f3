"""Where this system keeps what belongs to a user."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

NAME = "tbcluster"


def config_folder(
    platform: str = sys.platform,
    environ: Mapping[str, str] = os.environ,
    home: Path | None = None,
) -> Path:
    """The folder for tbcluster's settings, which may not exist yet: TBCLUSTER_HOME where that is
    set, else the XDG one, or on macOS the user's Application Support. `home` is the user's home
    folder where that is not the one of this process."""
    given_home = environ.get("TBCLUSTER_HOME", "")
    if given_home:
        return Path(given_home).expanduser().absolute()
    home = home or Path.home()
    if platform == "darwin":
        return home / "Library" / "Application Support" / NAME
    # The XDG specification has relative paths ignored.
    given = Path(environ.get("XDG_CONFIG_HOME", ""))
    return (given if given.is_absolute() else home / ".config") / NAME
