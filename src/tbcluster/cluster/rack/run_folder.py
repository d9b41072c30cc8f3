"""The folder of a coordinator's sockets."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from tbcluster.cluster.places import make_run_dir
from tbcluster.errors import RackError


class RunFolder:
    """A new folder until `close`; that of a coordinator before this one, which was killed, is
    removed. Whoever makes it holds the control port: there is no other coordinator.

    Args:
        state: Folder of the head's keys, where a link to it is kept.

    Raises:
        RackError: No link can be kept there.
    """

    def __init__(self, state: Path) -> None:
        self._link = state / "run"
        with suppress(OSError):  # there is none, or it is none of ours
            shutil.rmtree(os.readlink(self._link), ignore_errors=True)
        self.path = make_run_dir()
        try:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(self.path)
        except OSError as error:
            self.close()
            raise RackError(f"{self._link} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self._link.unlink()
