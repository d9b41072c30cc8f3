"""Which interface is what."""

from tbcluster.hardware.macos.hardware_ports import hardware_ports, receptacle, receptacles
from tests.doubles.mac import recorded


def test_a_desktop() -> None:
    ports = hardware_ports(recorded("hardware_ports_studio.txt"))
    assert ports["en0"] == "Ethernet"
    assert ports["en8"] == "Ethernet Adapter (en8)"
    assert len(ports) == 7
    assert receptacles(ports) == {"1": "en2", "2": "en3", "3": "en4", "4": "en5"}


def test_interfaces_are_not_numbered_as_receptacles_are() -> None:
    ports = hardware_ports(recorded("hardware_ports_notebook.txt"))
    assert receptacles(ports) == {"1": "en1", "2": "en6", "3": "en2"}
    assert ports["bridge0"] == "Thunderbolt Bridge"


def test_a_port_without_a_device_is_none() -> None:
    text = "Hardware Port: A\nDevice:\nDevice: en9\n\nHardware Port: B\nDevice: en1\n"
    assert hardware_ports(text) == {"en9": "A", "en1": "B"}
    assert hardware_ports("Device: en1\nHardware Port: B\n") == {}


def test_a_docks_network_card_is_no_receptacle() -> None:
    assert receptacle("Thunderbolt 12") == "12"
    for name in ("Thunderbolt Bridge", "Thunderbolt Ethernet Slot 2", "Thunderbolt", "Wi-Fi"):
        assert receptacle(name) is None
