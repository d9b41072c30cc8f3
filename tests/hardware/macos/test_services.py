"""Network services, on and off."""

import pytest

from tbcluster.hardware.macos.services import NetworkService, network_services
from tests.doubles.mac import recorded


def test_the_bridge_is_on() -> None:
    assert network_services(recorded("service_order_bridge_on.txt")) == (
        NetworkService("Rack, left", "en7", True),
        NetworkService("Thunderbolt Bridge", "bridge0", True),
        NetworkService("Wi-Fi", "en0", True),
        # Tailscale has no device.
    )


def test_the_bridge_is_off() -> None:
    services = network_services(recorded("service_order_bridge_off.txt"))
    assert [one.name for one in services if not one.is_enabled] == [
        "Thunderbolt Bridge",
        "Old link",
    ]
    assert [one.interface for one in services] == [
        "en0", "en1", "bridge0", "en3", "en2", "en3", "en15",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "heading", ["(*) Some bridge", "(3) (*) Some bridge", "(3) *Some bridge", "(*)  Some bridge "]
)
def test_every_way_to_say_that_a_service_is_off(heading: str) -> None:
    text = f"{heading}\n(Hardware Port: Thunderbolt Bridge, Device: bridge0)\n"
    assert network_services(text) == (NetworkService("Some bridge", "bridge0", False),)


def test_a_device_without_its_service_is_left_out() -> None:
    assert network_services("(Hardware Port: A, Device: en1)\n") == ()
    text = "(1) A\n(2) B\n(Hardware Port: C, Device: en1)\n(Hardware Port: D, Device: en2)\n"
    assert network_services(text) == (NetworkService("B", "en1", True),)
