"""This machine, as it is."""

import platform
import shutil
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from tbcluster.hardware.machine import this_machine
from tbcluster.machine import Compute, InterfaceKind, Machine, RdmaState

COMPUTE = Compute("CPU", "Example", 1 << 30, None, "0.32.4", "0.32.2")


def test_this_machine(tmp_path: Path) -> None:
    machine = this_machine(COMPUTE, tmp_path)
    assert machine.hostname == platform.node()
    assert machine.python_version == platform.python_version()
    assert machine.compute == COMPUTE
    assert machine.memory_bytes == psutil.virtual_memory().total
    assert machine.num_cores > 0
    assert machine.available_bytes is not None
    assert 0 < machine.available_bytes <= machine.memory_bytes
    assert machine.disk_total_bytes == shutil.disk_usage(tmp_path).total
    assert 0 <= machine.disk_free_bytes <= machine.disk_total_bytes
    assert InterfaceKind.LOOPBACK in {interface.kind for interface in machine.interfaces}
    assert not machine.is_lan_blocked


def test_the_models_folder_may_not_be_there_yet(tmp_path: Path) -> None:
    machine = this_machine(None, tmp_path / "not" / "yet")
    assert machine.disk_total_bytes == shutil.disk_usage(tmp_path).total
    assert this_machine(None, Path("relative/not/yet")).disk_total_bytes > 0


def test_what_the_agent_found_out(tmp_path: Path) -> None:
    assert this_machine(None, tmp_path, is_lan_blocked=True).is_lan_blocked


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux does not tell")
def test_linux(tmp_path: Path) -> None:
    machine = this_machine(None, tmp_path)
    assert machine.system == f"Linux {platform.release()}"
    assert (machine.os_build, machine.sleep_minutes, machine.wired_limit_mb) == (None, None, None)
    assert machine.rdma.state is RdmaState.ABSENT
    assert machine.probe_errors == ()


def test_it_crosses_the_wire(tmp_path: Path) -> None:
    machine = this_machine(COMPUTE, tmp_path)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(machine), type=Machine) == machine
