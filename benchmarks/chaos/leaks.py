"""What runs, what is open and what it takes, before and after; and what is too much of it."""

import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos.ground import Ground
from tests.doubles.faults.rack import FaultRack

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is only looked at
MAX_GROWTH = 1.05
# What a process opens and closes again at any time: a question, a probe of a link.
SOME_FILES = 8
# Which stages have a socket in a folder depends on the plan.
SOME_RUN_FILES = 3
SOME_SOCKETS = 12
MEGABYTE = 1e6
# A word of a command line -> what the process is; the first that fits.
ROLES = (
    ("tbcluster.stage.reference", "reference"),
    ("tbcluster.stage", "stage"),
    ("tbcluster.weights", "weights"),
    ("agent", "agent"),
    ("serve", "coordinator"),
)
LONG_LIVED = ("coordinator", "agent")
ZOMBIE = "zombie"


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is at one moment.

    Attributes:
        processes: How many of each role; those that have ended and that nobody has asked for their
            exit status count by themselves.
        memory_mb: Resident memory of the largest of each role.
        open_files: Of the one of each role that has most.
        run_files: Names of sockets and folders that clusters and agents have made.
        shared_memory: Names in /dev/shm.
        sockets: That listen or are connected, on all nodes.
    """

    processes: dict[str, int]
    memory_mb: dict[str, float]
    open_files: dict[str, int]
    run_files: tuple[str, ...]
    shared_memory: tuple[str, ...]
    sockets: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def inventory(ground: Ground) -> Inventory:
    """Look now."""
    counts: Counter[str] = Counter()
    memory: dict[str, float] = {}
    files: dict[str, int] = {}
    processes = ground.processes()
    if zombies := _num_zombies({process.pid for process in processes}):
        counts[ZOMBIE] = zombies
    for process in processes:
        try:
            role = role_of(process.cmdline())
            taken, opened = process.memory_info().rss / MEGABYTE, process.num_fds()
        except psutil.Error:
            continue
        counts[role] += 1
        memory[role] = max(taken, memory.get(role, 0.0))
        files[role] = max(opened, files.get(role, 0))
    run_files = tuple(sorted(name for top in ground.run_folders for name in _names(top)))
    shared = sorted(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else ()
    return Inventory(dict(counts), memory, files, run_files, tuple(shared), _sockets(ground))


def _names(top: Path) -> list[str]:
    """In it and below, from its node on; folders may go while they are looked through."""
    above = top.parents[1]
    return [
        str(Path(folder, name).relative_to(above))
        for folder, folders, files in os.walk(top)
        for name in (*folders, *files)
    ]


def role_of(command: Sequence[str]) -> str:
    """What a process of tbcluster does; "other" for any other."""
    found = (role for word, role in ROLES if any(part.startswith(word) for part in command))
    return next(found, "other")


def leaks(before: Inventory, after: Inventory, num_stages: int) -> list[str]:
    """What there is too much of, in words.

    Args:
        num_stages: Of the plan in force; there may be more or fewer than before.
    """
    problems = []
    wanted = {**before.processes, "stage": num_stages}
    for role in sorted({*wanted, *after.processes}):
        had, has = wanted.get(role, 0), after.processes.get(role, 0)
        if has != had:
            problems.append(f"{has} processes ({role}) instead of {had}")
    if len(after.run_files) > len(before.run_files) + SOME_RUN_FILES:
        counts = f"{len(after.run_files)} sockets and folders instead of {len(before.run_files)}"
        problems.append(f"{counts}: {', '.join(after.run_files)}")
    new = set(after.shared_memory) - set(before.shared_memory)
    if new:
        problems.append(f"shared memory is left: {', '.join(sorted(new))}")
    if after.sockets > before.sockets + SOME_SOCKETS:
        problems.append(f"{after.sockets} sockets instead of {before.sockets}")
    for role in LONG_LIVED:
        problems += _growth(role, before, after)
    return problems


def _growth(role: str, before: Inventory, after: Inventory) -> list[str]:
    if role not in before.memory_mb or role not in after.memory_mb:
        return []
    problems = []
    had, has = before.memory_mb[role], after.memory_mb[role]
    if has > had * MAX_GROWTH:
        problems.append(f"{role}: {has:.1f} MB of memory instead of {had:.1f}")
    if after.open_files[role] > before.open_files[role] + SOME_FILES:
        files = after.open_files[role], before.open_files[role]
        problems.append(f"{role}: {files[0]} open files instead of {files[1]}")
    return problems


def _num_zombies(parents: set[int]) -> int:
    found = psutil.process_iter(["ppid", "status"])
    return sum(
        process.info["ppid"] in parents and process.info["status"] == psutil.STATUS_ZOMBIE
        for process in found
    )


def _sockets(ground: Ground) -> int:
    """Of TCP, on the nodes of a rack; what lasts for some seconds after its end is not counted."""
    if not isinstance(ground, FaultRack):
        return 0
    command = ["ss", "-H", "-t", "-n", "-a", "state", "listening", "state", "established"]
    return sum(len(_lines([*ground.network.command(node), *command])) for node in ground.nodes)


def _lines(command: Sequence[str]) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
