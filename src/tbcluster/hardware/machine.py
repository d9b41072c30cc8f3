"""This machine, as it describes itself to the rack."""

import platform
import shutil
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import psutil

from tbcluster.hardware.linux import probe_linux
from tbcluster.hardware.macos.probe import probe_mac
from tbcluster.machine import Compute, Machine


def this_machine(
    compute: Compute | None, models_folder: Path, *, is_lan_blocked: bool = False
) -> Machine:
    """Look at this machine. It only reads, and takes up to ten seconds on a Mac.

    Args:
        compute: What MLX says of it (`python -m tbcluster.stage.probe`).
        models_folder: Where models are kept, or will be: its disk is looked at.
        is_lan_blocked: Whether the local network was found to be closed to this process.
    """
    base = replace(described_briefly(models_folder), compute=compute, is_lan_blocked=is_lan_blocked)
    return probe_mac(base) if sys.platform == "darwin" else probe_linux(base)


def described_briefly(models_folder: Path) -> Machine:
    """What every system tells in the same way, and at once."""
    disk = shutil.disk_usage(_existing(models_folder))
    return Machine(
        hostname=platform.node(),
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        tbcluster_version=version("tbcluster"),
        python_version=platform.python_version(),
        num_cores=psutil.cpu_count() or 0,
        memory_bytes=psutil.virtual_memory().total,
        disk_free_bytes=disk.free,
        disk_total_bytes=disk.total,
    )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
