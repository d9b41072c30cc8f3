"""A Mac's tools: what they printed, and programs that print it again."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from tbcluster.hardware.macos.probe import COMMANDS

FIXTURES = Path(__file__).parent.parent / "fixtures" / "macos"

# A desktop Mac linked over Thunderbolt 5, by the names of `COMMANDS`.
DESKTOP = {
    "thunderbolt": "thunderbolt_tb5_link.json",
    "hardware": "hardware_three_fields.json",
    "ports": "hardware_ports_studio.txt",
    "services": "service_order_bridge_off.txt",
    "interfaces": "ifconfig_bridge_off.txt",
    "sysctl": "sysctl_levels_without_names.txt",
    "power": "pmset_custom_desktop.txt",
    "thermal": "pmset_therm_nominal.txt",
    "memory_pressure": "memory_pressure.txt",
    "vm_stat": "vm_stat.txt",
    "rdma_devices": "ibv_devices_on.txt",
    "rdma_ports": "ibv_devinfo.txt",
}


def recorded(name: str) -> str:
    """What a tool printed."""
    return (FIXTURES / name).read_text(encoding="utf-8")


def answers(files: Mapping[str, str] = DESKTOP) -> dict[str, str]:
    """The shell commands with which tools answer: print these files; RDMA is on."""
    shown = {name: f"cat {shlex.quote(str(FIXTURES / file))}" for name, file in files.items()}
    return {"rdma": "echo enabled", **shown}


def install_tools(root: Path, answers: Mapping[str, str]) -> None:
    """Put a shell script at each tool's path under `root`, which knows only the arguments that
    the probe is to use; commands without an answer are not installed."""
    cases: dict[Path, list[str]] = {}
    for name, answer in answers.items():
        path, *arguments = COMMANDS[name]
        cases.setdefault(root / path, []).append(f"{shlex.quote(' '.join(arguments))}) {answer};;")
    for tool, its in cases.items():
        tool.parent.mkdir(parents=True, exist_ok=True)
        lines = ["#!/bin/sh", 'case "$*" in', *its, '*) echo "usage: $*" >&2; exit 64;;', "esac"]
        tool.write_text("\n".join(lines) + "\n")
        tool.chmod(0o755)
