"""Keeps a Mac awake while it has work."""

import subprocess
from collections.abc import Callable
from pathlib import Path

CAFFEINATE = Path("/usr/bin/caffeinate")


def keep_awake(pid: int, tool: Path = CAFFEINATE) -> Callable[[], None]:
    """Keep this machine from sleeping until the process `pid` ends or the returned function is
    called. Systems without macOS's tool are left alone; the display may sleep."""
    try:
        awake = subprocess.Popen(
            [str(tool), "-is", "-w", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return lambda: None

    def stop() -> None:
        awake.terminate()
        awake.wait()

    return stop
