"""Asks macOS's tools what this Mac is. All of them only read."""

from collections.abc import Callable, Mapping, Sized
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tbcluster.hardware.commands import Output, run_tools
from tbcluster.hardware.macos.cores import Cores, cores_of_profiler, cores_of_sysctl
from tbcluster.hardware.macos.free_memory import available_by_pages, available_by_pressure
from tbcluster.hardware.macos.hardware_ports import hardware_ports, receptacles
from tbcluster.hardware.macos.ifconfig import interface_states
from tbcluster.hardware.macos.interfaces import join_interfaces
from tbcluster.hardware.macos.power import power_settings, thermal_speed_limit
from tbcluster.hardware.macos.profiler import Item, profiler_items, text_of
from tbcluster.hardware.macos.rdma import port_states, rdma_devices, rdma_state
from tbcluster.hardware.macos.services import network_services
from tbcluster.hardware.macos.sysctl import sysctl_number, sysctl_values
from tbcluster.hardware.macos.thunderbolt import thunderbolt_ports
from tbcluster.machine import Machine, Rdma, RdmaState

# They run at the same time, so this bounds the whole probe; system_profiler takes seconds.
TIMEOUT_S = 8.0
COMMANDS: dict[str, tuple[str, ...]] = {
    "thunderbolt": ("usr/sbin/system_profiler", "SPThunderboltDataType", "-json"),
    "hardware": ("usr/sbin/system_profiler", "SPHardwareDataType", "-json"),
    "ports": ("usr/sbin/networksetup", "-listallhardwareports"),
    "services": ("usr/sbin/networksetup", "-listnetworkserviceorder"),
    "interfaces": ("sbin/ifconfig", "-a"),
    # A name that is no leaf stands for all below it.
    "sysctl": (
        "usr/sbin/sysctl",
        "hw",
        "machdep.cpu",
        "kern.osproductversion",
        "kern.osversion",
        "iogpu.wired_limit_mb",
    ),
    "power": ("usr/bin/pmset", "-g", "custom"),
    "thermal": ("usr/bin/pmset", "-g", "therm"),
    "memory_pressure": ("usr/bin/memory_pressure", "-Q"),
    "vm_stat": ("usr/bin/vm_stat",),
    "rdma": ("usr/bin/rdma_ctl", "status"),
    "rdma_devices": ("usr/bin/ibv_devices",),
    "rdma_ports": ("usr/bin/ibv_devinfo",),
}
_Found = TypeVar("_Found", bound=Sized)


def probe_mac(base: Machine, root: Path = Path("/"), timeout_s: float = TIMEOUT_S) -> Machine:
    """`base` with what macOS tells of it, within `timeout_s` and a little.

    What cannot be learned is left as it is, with a line in `probe_errors`.

    Args:
        root: Folder that the tools' paths start from.
    """
    commands = {
        name: (str(root / path), *arguments) for name, (path, *arguments) in COMMANDS.items()
    }
    return describe(base, run_tools(commands, timeout_s))


def describe(base: Machine, outputs: Mapping[str, Output]) -> Machine:
    """`base` with what the tools printed, by the names of `COMMANDS` (pure)."""
    return _Answers(outputs).describe(base)


class _Answers:
    """What the tools printed. The problems of those whose answers are needed are collected."""

    def __init__(self, outputs: Mapping[str, Output]) -> None:
        self._outputs = outputs
        # Commands of the same tool fail for the same reason: a line says it once.
        self._problems: dict[str, None] = {}

    def describe(self, base: Machine) -> Machine:
        machine = self._add_settings(self._add_network(self._add_identity(base)))
        return replace(machine, probe_errors=(*base.probe_errors, *self._problems))

    def _add_identity(self, base: Machine) -> Machine:
        sysctl = self._read("sysctl", sysctl_values)
        version = sysctl.get("kern.osproductversion")
        cores = cores_of_sysctl(sysctl)
        # Asked twice: sysctl is quick and says all of it, on systems as they are now.
        is_whole = cores is not None and "machdep.cpu.brand_string" in sysctl
        hardware = {} if is_whole else next(iter(self._items("hardware", "SPHardwareDataType")), {})
        cores = cores or cores_of_profiler(hardware.get("number_processors"))
        cores = cores or Cores(base.num_cores)
        return replace(
            base,
            system=f"macOS {version}" if version else base.system,
            os_build=sysctl.get("kern.osversion"),
            chip=sysctl.get("machdep.cpu.brand_string") or text_of(hardware, "chip_type"),
            model=sysctl.get("hw.model") or text_of(hardware, "machine_model"),
            num_cores=cores.total,
            num_performance_cores=cores.performance,
            num_efficiency_cores=cores.efficiency,
            memory_bytes=sysctl_number(sysctl, "hw.memsize") or base.memory_bytes,
            wired_limit_mb=sysctl_number(sysctl, "iogpu.wired_limit_mb"),
        )

    def _add_network(self, base: Machine) -> Machine:
        ports = self._read("ports", hardware_ports)
        states = self._read("interfaces", interface_states)
        services = network_services(self._text("services"))
        buses = self._items("thunderbolt", "SPThunderboltDataType")
        return replace(
            base,
            interfaces=join_interfaces(states, ports, services),
            thunderbolt=thunderbolt_ports(buses, receptacles(ports)),
            rdma=self._rdma(),
        )

    def _add_settings(self, base: Machine) -> Machine:
        power = power_settings(self._text("power"))
        return replace(
            base,
            available_bytes=self._available_bytes(),
            sleep_minutes=power.sleep_minutes,
            restarts_after_power_loss=power.restarts_after_power_loss,
            thermal_speed_limit=thermal_speed_limit(self._text("thermal")),
        )

    def _available_bytes(self) -> int | None:
        by_pressure = available_by_pressure(self._outputs["memory_pressure"].text)
        if by_pressure is not None:
            return by_pressure
        by_pages = available_by_pages(self._outputs["vm_stat"].text)
        if by_pages is None:
            self._note("memory_pressure")
            self._note("vm_stat")
        return by_pages

    def _rdma(self) -> Rdma:
        # macOS before 26.2 has no such tool, which is no problem.
        if self._outputs["rdma"].is_absent:
            return Rdma()
        state = rdma_state(self._outputs["rdma"].text)
        if state is None:
            self._note("rdma")
            return Rdma()
        if state is RdmaState.DISABLED:
            return Rdma(state)
        devices = rdma_devices(self._text("rdma_devices"))
        # Without devices ibv_devinfo fails, as on Macs with Thunderbolt 4.
        states = port_states(self._text("rdma_ports")) if devices else {}
        return Rdma(state, {device: states.get(device, "unknown") for device in devices})

    def _items(self, name: str, data_type: str) -> list[Item]:
        items = profiler_items(self._text(name), data_type)
        if items is None:
            self._note(name)
        return items or []

    def _read(self, name: str, reader: Callable[[str], _Found]) -> _Found:
        """The answer as `reader` understands it; that it finds nothing is a problem."""
        found = reader(self._text(name))
        if not found:
            self._note(name)
        return found

    def _text(self, name: str) -> str:
        if self._outputs[name].problem is not None:
            self._note(name)
        return self._outputs[name].text

    def _note(self, name: str) -> None:
        """Note why a tool's answer is no use."""
        command = " ".join((Path(COMMANDS[name][0]).name, *COMMANDS[name][1:]))
        problem = self._outputs[name].problem or f"{command}: cannot read what it prints"
        self._problems[problem] = None
