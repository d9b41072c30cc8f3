"""The whole probe, with programs at the tools' places that print what was recorded."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.hardware.macos.probe import COMMANDS, probe_mac
from tbcluster.machine import InterfaceKind, Machine, Rdma, RdmaState
from tests.doubles.mac import DESKTOP, answers, install_tools

BASE = Machine("mini1", "Darwin 26.0", "arm64", "0.1.0", "3.11.7", num_cores=10, memory_bytes=7)


def test_a_mac(tmp_path: Path) -> None:
    install_tools(tmp_path, answers())
    machine = probe_mac(BASE, tmp_path)
    assert machine.probe_errors == ()
    assert replace(machine, interfaces=(), thunderbolt=()) == replace(
        BASE,
        system="macOS 26.3",
        os_build="25D125",
        chip="Apple M3 Ultra",
        model="Mac15,14",
        num_cores=28,
        num_performance_cores=20,
        num_efficiency_cores=8,
        memory_bytes=256 << 30,
        available_bytes=36 << 30,
        wired_limit_mb=0,
        sleep_minutes=0,
        restarts_after_power_loss=True,
        thermal_speed_limit=100,
        rdma=Rdma(
            RdmaState.ENABLED,
            {"rdma_en3": "PORT_ACTIVE", "rdma_en2": "PORT_DOWN", "rdma_en4": "unknown"},
        ),
    )
    interfaces = {interface.name: interface for interface in machine.interfaces}
    linked = next(port for port in machine.thunderbolt if port.peer_port_id)
    assert linked.interface == "en3"
    assert interfaces["en3"].kind is InterfaceKind.THUNDERBOLT
    assert interfaces["en0"].service == "Ethernet"


def test_no_tool_at_all(tmp_path: Path) -> None:
    machine = probe_mac(BASE, tmp_path)
    assert replace(machine, probe_errors=()) == BASE
    # One line for each tool that every macOS has; those for RDMA are not missed.
    missed = {line.partition(":")[0] for line in machine.probe_errors}
    assert len(missed) == len(machine.probe_errors)
    assert missed == {Path(path).name for path, *_ in COMMANDS.values()} - {
        "rdma_ctl",
        "ibv_devices",
        "ibv_devinfo",
    }


@pytest.mark.parametrize("absent", sorted({*DESKTOP, "rdma"} - {"rdma_devices", "rdma_ports"}))
def test_one_tool_is_missing(tmp_path: Path, absent: str) -> None:
    shown = answers()
    path = COMMANDS[absent][0]
    install_tools(
        tmp_path, {name: answer for name, answer in shown.items() if COMMANDS[name][0] != path}
    )
    machine = probe_mac(BASE, tmp_path)
    # Another tool tells the same as vm_stat; macOS before 26.2 has no rdma_ctl.
    needless = {"vm_stat", "memory_pressure", "rdma"}
    expected = (
        () if absent in needless else (f"{Path(path).name}: {tmp_path / path} does not exist",)
    )
    assert machine.probe_errors == expected
    assert (machine.rdma.state is RdmaState.ABSENT) == (absent == "rdma")
    assert machine.available_bytes is not None


def test_what_another_tool_tells_too(tmp_path: Path) -> None:
    shown = answers() | {"sysctl": "echo 'sysctl: no' >&2; exit 1", "memory_pressure": "exit 1"}
    install_tools(tmp_path, shown)
    machine = probe_mac(BASE, tmp_path)
    assert (machine.chip, machine.model) == ("Apple M4 Pro", "Mac16,11")
    assert (machine.num_cores, machine.num_performance_cores) == (14, 10)
    assert machine.available_bytes == 215_000 * 16384
    assert (machine.system, machine.memory_bytes) == (BASE.system, BASE.memory_bytes)
    assert machine.probe_errors == ("sysctl: sysctl: no",)


def test_a_tool_that_fails_may_have_told_enough(tmp_path: Path) -> None:
    text = answers()["sysctl"]
    unknown = "echo \"sysctl: unknown oid 'iogpu.wired_limit_mb'\" >&2; exit 1"
    install_tools(tmp_path, answers() | {"sysctl": f"{text}; {unknown}"})
    machine = probe_mac(BASE, tmp_path)
    assert machine.chip == "Apple M3 Ultra"
    assert machine.probe_errors == ("sysctl: sysctl: unknown oid 'iogpu.wired_limit_mb'",)


def test_answers_that_cannot_be_read(tmp_path: Path) -> None:
    install_tools(tmp_path, dict.fromkeys(COMMANDS, "echo '<redacted>'"))
    machine = probe_mac(BASE, tmp_path)
    assert replace(machine, probe_errors=()) == BASE
    assert "networksetup -listallhardwareports: cannot read what it prints" in machine.probe_errors
    assert "system_profiler SPThunderboltDataType -json: cannot read what it prints" in (
        machine.probe_errors
    )
    assert "rdma_ctl status: cannot read what it prints" in machine.probe_errors


def test_a_mac_without_thunderbolt(tmp_path: Path) -> None:
    nothing = """echo '{"SPThunderboltDataType": []}'"""
    install_tools(tmp_path, answers() | {"thunderbolt": nothing})
    machine = probe_mac(BASE, tmp_path)
    assert (machine.thunderbolt, machine.probe_errors) == ((), ())


@pytest.mark.parametrize("status", ["disabled", "enabled"])
def test_no_rdma_devices(tmp_path: Path, status: str) -> None:
    # Off, or on a Mac with Thunderbolt 4; ibv_devinfo fails then.
    shown = answers({**DESKTOP, "rdma_devices": "ibv_devices_none.txt"})
    shown |= {"rdma": f"echo {status}", "rdma_ports": "echo 'No IB devices found' >&2; exit 1"}
    install_tools(tmp_path, shown)
    machine = probe_mac(BASE, tmp_path)
    assert (machine.rdma, machine.probe_errors) == (Rdma(RdmaState(status)), ())


def test_a_tool_that_does_not_answer_costs_only_its_own_answer(tmp_path: Path) -> None:
    hangs = "exec sleep 600"
    install_tools(tmp_path, answers() | {"thunderbolt": hangs, "thermal": hangs})
    began = time.monotonic()
    machine = probe_mac(BASE, tmp_path, timeout_s=2.0)
    assert time.monotonic() - began < 60
    assert set(machine.probe_errors) == {
        "system_profiler: no answer within 2 s",
        "pmset: no answer within 2 s",
    }
    assert (machine.chip, machine.sleep_minutes) == ("Apple M3 Ultra", 0)
    assert (machine.thunderbolt, machine.thermal_speed_limit) == ((), None)


def test_nothing_is_ever_changed() -> None:
    # Whatever these could change takes other words: -set..., key=value, enable, up.
    verbs = {(Path(path).name, *words) for path, *words in COMMANDS.values()}
    assert {verb for verb in verbs if verb[0] in {"networksetup", "rdma_ctl", "ifconfig"}} == {
        ("networksetup", "-listallhardwareports"),
        ("networksetup", "-listnetworkserviceorder"),
        ("rdma_ctl", "status"),
        ("ifconfig", "-a"),
    }
    assert all(verb[1] == "-g" for verb in verbs if verb[0] == "pmset")
    assert not any("=" in word or word == "-w" for verb in verbs for word in verb)
