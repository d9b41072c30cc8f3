"""What the interfaces are, joined from three tools."""

from tbcluster.hardware.macos.hardware_ports import hardware_ports
from tbcluster.hardware.macos.ifconfig import interface_states
from tbcluster.hardware.macos.interfaces import join_interfaces
from tbcluster.hardware.macos.services import network_services
from tbcluster.machine import Interface, InterfaceKind
from tests.doubles.mac import recorded


def interfaces(states: str, ports: str, services: str) -> dict[str, Interface]:
    joined = join_interfaces(
        interface_states(recorded(states)),
        hardware_ports(recorded(ports)),
        network_services(recorded(services)),
    )
    return {interface.name: interface for interface in joined}


def desktop() -> dict[str, Interface]:
    return interfaces(
        "ifconfig_bridge_off.txt", "hardware_ports_studio.txt", "service_order_bridge_off.txt"
    )


def notebook() -> dict[str, Interface]:
    return interfaces(
        "ifconfig_bridge_on.txt", "hardware_ports_notebook.txt", "service_order_bridge_on.txt"
    )


def test_kinds() -> None:
    thunderbolt = dict.fromkeys(("en2", "en3", "en4", "en5"), InterfaceKind.THUNDERBOLT)
    assert {name: found.kind for name, found in desktop().items()} == {
        "lo0": InterfaceKind.LOOPBACK,
        "gif0": InterfaceKind.OTHER,
        "en0": InterfaceKind.ETHERNET,
        "en1": InterfaceKind.WIFI,
        **thunderbolt,
        "awdl0": InterfaceKind.OTHER,
        "utun4": InterfaceKind.OTHER,
    }
    # A dock's network card is called "Thunderbolt Ethernet Slot 2".
    assert notebook()["en7"].kind is InterfaceKind.ETHERNET


def test_a_bridge_of_thunderbolt_ports() -> None:
    found = notebook()
    bridge = found["bridge0"]
    assert bridge.kind is InterfaceKind.BRIDGE
    assert {found[member].kind for member in bridge.members} == {InterfaceKind.THUNDERBOLT}
    assert (bridge.service, bridge.is_service_enabled) == ("Thunderbolt Bridge", True)


def test_a_bridge_that_is_off() -> None:
    joined = join_interfaces(
        interface_states("bridge0: flags=8863<UP> mtu 1500\n\tmember: en2 x\n\tstatus: inactive\n"),
        hardware_ports(recorded("hardware_ports_studio.txt")),
        network_services(recorded("service_order_bridge_off.txt")),
    )
    assert joined == (
        Interface(
            "bridge0",
            InterfaceKind.BRIDGE,
            is_up=False,
            mtu=1500,
            members=("en2",),
            service="Thunderbolt Bridge",
            is_service_enabled=False,
        ),
    )


def test_of_several_services_one_that_is_on_counts() -> None:
    found = desktop()
    assert (found["en3"].service, found["en3"].is_service_enabled) == ("Thunderbolt 2", True)
    assert (found["en4"].service, found["en4"].is_service_enabled) == (None, True)


def test_without_hardware_ports_a_cards_name_has_to_do() -> None:
    joined = join_interfaces(interface_states(recorded("ifconfig_bridge_on.txt")), {}, ())
    kinds = {interface.name: interface.kind for interface in joined}
    assert kinds["en1"] is kinds["en7"] is InterfaceKind.ETHERNET
    assert kinds["bridge0"] is InterfaceKind.BRIDGE
    assert kinds["lo0"] is InterfaceKind.LOOPBACK


def test_phones_are_no_network() -> None:
    states = interface_states("en15: flags=8863<UP> mtu 1500\nen16: flags=8863<UP> mtu 1500\n")
    ports = {"en15": "iPhone USB", "en16": "WLAN"}
    kinds = [interface.kind for interface in join_interfaces(states, ports, ())]
    assert kinds == [InterfaceKind.OTHER, InterfaceKind.WIFI]
