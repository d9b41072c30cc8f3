"""What Linux tells of this machine, by its own files and through psutil."""

import platform
from dataclasses import replace
from pathlib import Path

from tbcluster.hardware.cgroups import cpu_limit
from tbcluster.hardware.interfaces import local_interfaces
from tbcluster.hardware.memory import available_bytes
from tbcluster.machine import Machine


def probe_linux(base: Machine, root: Path = Path("/")) -> Machine:
    """`base` with what Linux tells of it; sleep, heat and Thunderbolt's ports it does not.

    Args:
        root: Folder of proc and sys.
    """
    return replace(
        base,
        system=f"Linux {platform.release()}",
        chip=_chip(root / "proc/cpuinfo"),
        model=_text(root / "sys/class/dmi/id/product_name").strip() or None,
        available_bytes=available_bytes(root),
        cpu_limit=cpu_limit(root),
        interfaces=local_interfaces("linux", root),
    )


def _chip(cpuinfo: Path) -> str | None:
    """The processor's name; ARM kernels do not tell it."""
    lines = _text(cpuinfo).splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] or None if names else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
