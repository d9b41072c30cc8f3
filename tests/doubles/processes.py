"""What is left behind: processes and sockets of a cluster."""

import os
import tempfile
from pathlib import Path

import psutil


def is_alive(pid: int) -> bool:
    """Whether the process exists and is more than a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def worker_pids(parent: int) -> list[int]:
    """The worker processes below `parent`."""
    children = psutil.Process(parent).children(recursive=True)
    return [child.pid for child in children if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    """Whether this is a stage worker or the parity check's reference."""
    try:
        return any(word.startswith("tbcluster.stage") for word in process.cmdline())
    except psutil.Error:
        return False


def run_dirs(parent: Path | None = None) -> set[str]:
    """Socket folders of running (or badly ended) clusters."""
    folder = parent or Path(tempfile.gettempdir())
    return {name for name in os.listdir(folder) if name.startswith("tbcluster-")}
