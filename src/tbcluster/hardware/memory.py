"""How much memory models may take on this machine."""

from contextlib import suppress
from pathlib import Path

import psutil

from tbcluster.hardware.cgroups import ROOT, memory_room


def available_bytes(root: Path = ROOT) -> int | None:
    """Free memory and what the kernel can free at once, within the container's limit if there is
    one; None where the system does not say (Linux only: on a Mac, Metal says more).

    Args:
        root: Folder of proc and sys.
    """
    free = _mem_available(root / "proc/meminfo")
    known = [size for size in (free, memory_room(root)) if size is not None]
    return min(known, default=None)


def left_bytes() -> int:
    """Memory that a process may still take without any other giving some up, on every system."""
    known = available_bytes()
    return int(psutil.virtual_memory().available) if known is None else known


def held_by_children() -> int:
    """What the processes that this one has started hold alone, and those that they have started.
    Memory that they share, such as a library's, is nobody's."""
    held = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            memory = process.memory_info()
            held += max(0, memory.rss - getattr(memory, "shared", 0))
    return held


def _mem_available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    # MemAvailable:   12345678 kB
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None
