"""The limits of the control groups that this process is in, as containers and services have them.

Linux alone; both versions, whose hierarchies may lie beside each other. A group's limit holds for
all groups in it, so that each one above counts as well.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
# Version 1 writes a number that no machine has where there is no limit.
_NO_LIMIT = 1 << 60


def memory_room(root: Path = ROOT) -> int | None:
    """Bytes that this process and those beside it may still take; None where there is no limit.
    Files that were read count as free: the kernel gives them back at once."""
    rooms = [
        *(_room(group, "memory.max", "memory.current", "") for group in _groups(root, "")),
        *(
            _room(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            for group in _groups(root, "memory")
        ),
    ]
    return min((room for room in rooms if room is not None), default=None)


def cpu_limit(root: Path = ROOT) -> float | None:
    """How many cores' time this process may use; None where there is no limit."""
    limits = [
        *(_shares(_text(group / "cpu.max")) for group in _groups(root, "")),
        *(
            _shares(f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}")
            for group in _groups(root, "cpu")
        ),
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's group and of those above it, for a controller of version 1, or
    for version 2 (no name). In a container the group's own name may lead nowhere; its root then is
    the group's."""
    top = root / "sys/fs/cgroup" / controller
    if not top.is_dir():
        return
    own = _own_group(_text(root / "proc/self/cgroup"), controller)
    for folder in (own, *own.parents):
        # Names that leave the hierarchy are those of groups outside the container.
        if ".." not in folder.parts:
            yield top / folder.relative_to("/")


def _own_group(text: str, controller: str) -> PurePosixPath:
    """From lines such as `4:memory:/a/b`, or `0::/a/b` for version 2."""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(",") and path.startswith("/"):
            return PurePosixPath(path)
    return PurePosixPath("/")


def _room(group: Path, limit_file: str, used_file: str, prefix: str) -> int | None:
    try:
        limit = int(_text(group / limit_file))
        used = int(_text(group / used_file))
    except ValueError:  # "max", or no such file
        return None
    if limit >= _NO_LIMIT:
        return None
    return max(0, limit - used + _read_files(_text(group / "memory.stat"), prefix))


def _read_files(stat: str, prefix: str) -> int:
    """Of `memory.stat`: files that nobody uses just now, such as weights that were loaded."""
    name = f"{prefix}inactive_file "
    found = (line.removeprefix(name) for line in stat.splitlines() if line.startswith(name))
    return int(next(found, "0"))


def _shares(text: str) -> float | None:
    """From a quota and a period, both in microseconds; `max` and -1 are no limit."""
    try:
        quota, period = (int(word) for word in text.split())
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
