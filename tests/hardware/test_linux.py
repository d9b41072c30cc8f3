"""What Linux tells, from files of the test's own."""

import platform
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.hardware.interfaces import local_interfaces
from tbcluster.hardware.linux import probe_linux
from tbcluster.machine import Machine

BASE = Machine("box", "Linux", "x86_64", "0.1.0", "3.11.7", num_cores=2, memory_bytes=7)
CPUINFO = """\
processor\t: 0
vendor_id\t: Example
model name\t: Example Xeon 9000
processor\t: 1
model name\t: Example Xeon 9001
"""


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_what_is_told(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", CPUINFO)
    write(tmp_path, "proc/meminfo", "MemTotal: 900 kB\nMemAvailable: 300 kB\n")
    write(tmp_path, "sys/class/dmi/id/product_name", "Example Station\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000\n")
    assert probe_linux(BASE, tmp_path) == replace(
        BASE,
        system=f"Linux {platform.release()}",
        chip="Example Xeon 9000",
        model="Example Station",
        available_bytes=300 * 1024,
        cpu_limit=1.5,
        interfaces=local_interfaces("linux", tmp_path),
    )


@pytest.mark.parametrize("cpuinfo", ["", "processor\t: 0\n", "model name\t:\n", None])
def test_what_is_not(tmp_path: Path, cpuinfo: str | None) -> None:
    if cpuinfo is not None:
        write(tmp_path, "proc/cpuinfo", cpuinfo)
    machine = probe_linux(BASE, tmp_path)
    assert (machine.chip, machine.model, machine.available_bytes) == (None, None, None)
    assert (machine.sleep_minutes, machine.thunderbolt, machine.probe_errors) == (None, (), ())
