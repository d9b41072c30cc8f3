"""Joins what three tools say of the network interfaces."""

from collections.abc import Mapping, Sequence

from tbcluster.hardware.macos.hardware_ports import receptacle
from tbcluster.hardware.macos.ifconfig import InterfaceState
from tbcluster.hardware.macos.services import NetworkService
from tbcluster.machine import Interface, InterfaceKind

# German systems say WLAN, macOS before 10.7 AirPort.
_WIFI_PORTS = {"Wi-Fi", "WLAN", "AirPort"}
# Hardware ports that lead to a phone or a headset, not to a network.
_OTHER_PORTS = ("iPhone", "iPad", "Bluetooth")


def join_interfaces(
    states: Sequence[InterfaceState],
    ports: Mapping[str, str],
    services: Sequence[NetworkService],
) -> tuple[Interface, ...]:
    """The interfaces; `ports` maps each to the name of its hardware port, and is empty where
    macOS did not tell."""
    return tuple(_join(state, ports, services) for state in states)


def _join(
    state: InterfaceState, ports: Mapping[str, str], services: Sequence[NetworkService]
) -> Interface:
    service = _service(state.name, services)
    return Interface(
        name=state.name,
        kind=_kind(state, ports),
        is_up=state.is_up,
        mtu=state.mtu,
        addresses=state.addresses,
        members=state.members,
        service=service.name if service else None,
        is_service_enabled=service.is_enabled if service else True,
    )


def _service(interface: str, services: Sequence[NetworkService]) -> NetworkService | None:
    """An interface may have several services: one that is on counts."""
    own = [service for service in services if service.interface == interface]
    return next((service for service in own if service.is_enabled), own[0] if own else None)


def _kind(state: InterfaceState, ports: Mapping[str, str]) -> InterfaceKind:
    if "LOOPBACK" in state.flags:
        return InterfaceKind.LOOPBACK
    if state.name.startswith("bridge"):
        return InterfaceKind.BRIDGE
    port = ports.get(state.name)
    if port is None:
        # A network card always has a hardware port; without that list its name has to do.
        is_card = not ports and state.name.startswith("en")
        return InterfaceKind.ETHERNET if is_card else InterfaceKind.OTHER
    if receptacle(port) is not None:
        return InterfaceKind.THUNDERBOLT
    if port in _WIFI_PORTS:
        return InterfaceKind.WIFI
    is_other = port.startswith(_OTHER_PORTS) or not state.name.startswith("en")
    return InterfaceKind.OTHER if is_other else InterfaceKind.ETHERNET
