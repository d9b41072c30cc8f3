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
        if limit == "max":
            return None
        current = int((cgroup / "memory.current").read_text(encoding="ascii"))
        return max(0, int(limit) - current + _page_cache(cgroup))
    except (OSError, ValueError):
        return None


def _page_cache(cgroup: Path) -> int:
    """What the kernel gives back at once: files that were read, such as weights."""
    try:
        lines = (cgroup / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = [line.partition(" ")[2] for line in lines if line.startswith("inactive_file ")]
    return int(found[0]) if found else 0
