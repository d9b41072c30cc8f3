"""How much memory a process may still take on this machine."""

from pathlib import Path

PROC_MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def available_bytes(meminfo: Path = PROC_MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Free memory and what the kernel can free at once, within the container's limit if there is
    one; None where the system does not say (Linux only: on a Mac, Metal says more)."""
    free = _mem_available(meminfo)
    limit = _cgroup_room(cgroup)
    known = [size for size in (free, limit) if size is not None]
    return min(known, default=None)


def _mem_available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    # MemAvailable:   12345678 kB
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


def _cgroup_room(cgroup: Path) -> int | None:
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        current = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - current)
