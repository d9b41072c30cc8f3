"""What other processes of this machine have held at most and read so far."""

import resource
import subprocess
import sys
from pathlib import Path

HAS_PROC = sys.platform == "linux"

_IDLE = "import sys, mlx.core as mx; mx.eval(mx.zeros(1)); print(flush=True); sys.stdin.read()"


def resident_bytes(pid: int) -> int:
    """The physical memory that a running process has now (Linux)."""
    return _memory(pid, "VmRSS")


def peak_resident_bytes(pid: int) -> int:
    """The most physical memory a running process has had (Linux)."""
    return _memory(pid, "VmHWM")


def _memory(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no memory: has it ended?")


def bytes_read(pid: int) -> int:
    """What a running process has asked of `read` and its kin, cached or not (Linux)."""
    for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no count of bytes read")


def peak_resident_bytes_of_children() -> int:
    """The most that any child which has ended ever had. (Not on Linux, where a child's count
    begins with its parent's.)"""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


class IdleProcess:
    """A child that has imported MLX and loaded nothing, until it is closed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _IDLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.communicate()
