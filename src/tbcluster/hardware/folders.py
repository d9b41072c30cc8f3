"""Where this system keeps what belongs to a user."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

NAME = "tbcluster"


def config_folder(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> Path:
    """The folder for tbcluster's settings, which may not exist yet: the XDG one, or on macOS the
    user's Application Support."""
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support" / NAME
    # The XDG specification has relative paths ignored.
    given = Path(environ.get("XDG_CONFIG_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".config") / NAME
