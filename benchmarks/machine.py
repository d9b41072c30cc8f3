"""What a benchmark ran on, as far as figures depend on it; nothing that names the machine."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import tbcluster


@dataclass(frozen=True, slots=True)
class Machine:
    """Hardware and versions; memory in GB (10^9 bytes)."""

    cpu: str
    cores: int
    memory_gb: float
    os: str
    python: str
    mlx: str
    mlx_lm: str
    tbcluster: str
    is_mlx_compiling: bool

    def __str__(self) -> str:
        compiling = "" if self.is_mlx_compiling else ", MLX_DISABLE_COMPILE"
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gb:g} GB, {self.os}; "
            f"Python {self.python}, mlx {self.mlx}{compiling}, mlx-lm {self.mlx_lm}, "
            f"tbcluster {self.tbcluster}"
        )


def this_machine() -> Machine:
    """Describe the machine this process runs on."""
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        os=_operating_system(),
        python=platform.python_version(),
        mlx=version("mlx"),
        mlx_lm=version("mlx-lm"),
        tbcluster=tbcluster.__version__,
        is_mlx_compiling="MLX_DISABLE_COMPILE" not in os.environ,
    )


def _operating_system() -> str:
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]} {platform.machine()}"
    return f"{platform.system()} {platform.machine()}"


def _cpu() -> str:
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
