"""Free memory as Linux tells it, in files of the test's own."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tbcluster.hardware.memory import available_bytes, held_by_children, left_bytes
from tests.doubles.waiting import wait_until

MEMINFO = """\
MemTotal:       132000000 kB
MemFree:         1000000 kB
MemAvailable:    2000000 kB
Buffers:          300000 kB
"""
FREE = 2_000_000 * 1024
MIB = 1 << 20
# Holds memory of its own, and says so.
HOLDS_64_MIB = "held = b'x' * (64 << 20); print(flush=True); input()"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine that says nothing of itself."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    return tmp_path


def test_a_system_that_does_not_say(root: Path, tmp_path: Path) -> None:
    assert available_bytes(root) is None
    assert available_bytes(tmp_path / "nowhere") is None


def test_what_the_kernel_could_free_counts(root: Path) -> None:
    (root / "proc/meminfo").write_text(MEMINFO)
    assert available_bytes(root) == FREE


@pytest.mark.parametrize(
    "meminfo", ["", "MemTotal: 12 kB\n", "SomeMemAvailable: 12 kB\n"], ids=["empty", "old", "other"]
)
def test_an_old_kernel_does_not_say(root: Path, meminfo: str) -> None:
    (root / "proc/meminfo").write_text(meminfo)
    assert available_bytes(root) is None


@pytest.mark.parametrize(
    ("limit", "expected"), [("1000000\n", 600_000), ("4000000000\n", FREE), ("max\n", FREE)]
)
def test_a_containers_limit_counts_where_it_is_less(root: Path, limit: str, expected: int) -> None:
    (root / "proc/meminfo").write_text(MEMINFO)
    (root / "sys/fs/cgroup/memory.max").write_text(limit)
    (root / "sys/fs/cgroup/memory.current").write_text("400000\n")
    assert available_bytes(root) == expected


def test_this_machine_says_something_sensible_or_nothing() -> None:
    available = available_bytes()
    assert available is None or 0 <= available < 1 << 50


def test_what_children_hold_is_known_until_they_end() -> None:
    before = held_by_children()
    command = [sys.executable, "-c", HOLDS_64_MIB]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 64 * MIB <= held_by_children() - before < 96 * MIB
        child.communicate(b"\n")
    wait_until(lambda: held_by_children() < before + MIB, "nothing is held any more")


def test_every_system_says_what_is_left() -> None:
    assert 0 < left_bytes() < psutil.virtual_memory().total
