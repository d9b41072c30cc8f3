"""Interfaces, their addresses and what they bridge."""

import pytest

from tbcluster.hardware.macos.ifconfig import InterfaceState, interface_states
from tbcluster.machine import Address
from tests.doubles.mac import recorded


def states(name: str) -> dict[str, InterfaceState]:
    return {state.name: state for state in interface_states(recorded(name))}


def test_addresses_have_no_scope() -> None:
    found = states("ifconfig_bridge_off.txt")
    assert found["en0"].addresses == (
        Address("fe80::be:efff:fe00:10", 64),
        Address("192.0.2.20", 24),
        Address("2001:db8:5::20", 64),
    )
    assert found["lo0"].addresses == (
        Address("127.0.0.1", 8),
        Address("::1", 128),
        Address("fe80::1", 64),
    )
    assert found["utun4"].addresses == (Address("100.64.7.7", 32),)
    assert found["en3"].addresses[1] == Address("169.254.7.13", 16)


def test_what_else_is_told() -> None:
    found = states("ifconfig_bridge_off.txt")
    assert list(found)[:3] == ["lo0", "gif0", "en0"]
    assert [found[name].mtu for name in ("lo0", "en0", "en3", "utun4")] == [16384, 9000, 1500, 1280]
    assert "LOOPBACK" in found["lo0"].flags


def test_an_interface_is_up_if_someone_is_there() -> None:
    up = [state.name for state in states("ifconfig_bridge_off.txt").values() if state.is_up]
    # gif0 is off, en1, en2 and en5 have nobody at the other end.
    assert up == ["lo0", "en0", "en3", "en4", "awdl0", "utun4"]


def test_a_bridge_has_members() -> None:
    bridge = states("ifconfig_bridge_on.txt")["bridge0"]
    assert bridge.members == ("en1", "en6", "en2")
    assert bridge.is_up
    assert bridge.addresses[1] == Address("169.254.9.2", 16)


def test_without_indentation_it_reads_the_same() -> None:
    text = recorded("ifconfig_bridge_on.txt")
    flat = "\n" + "\n".join(line.strip() for line in text.splitlines())
    assert interface_states(flat) == interface_states(text)


@pytest.mark.parametrize(
    "line",
    [
        "inet",
        "inet 192.0.2.1",
        "inet 192.0.2.1 netmask",
        "inet 192.0.2.1 netmask 255.255.255.0",
        "inet 192.0.2.1 netmask 0xffffffffff",
        "inet 192.0.2.300 netmask 0xff000000",
        "inet6 fe80::1%en0 prefixlen 129",
        "inet6 fe80::1%en0 prefixlen -1",
        "inet6 fe80::1%en0 prefixlen x",
        "inet6 <redacted> prefixlen 64",
    ],
)
def test_an_address_that_cannot_be_read_is_left_out(line: str) -> None:
    (state,) = interface_states(f"en0: flags=8863<UP> mtu 1500\n\t{line}\n\tinet6 ::2 prefixlen 64")
    assert state.addresses == (Address("::2", 64),)


def test_missing_parts() -> None:
    (state,) = interface_states("stray\n en0: flags=8863<UP>\n\tmember:\n\tstatus:\n")
    assert (state.name, state.mtu, state.members, state.status) == ("en0", 0, (), "")
