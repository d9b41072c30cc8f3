"""Network interfaces as Linux's own files tell them, and by name alone."""

import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tbcluster.hardware.interfaces import kind_by_name, kind_by_sysfs, local_interfaces
from tbcluster.machine import Address, InterfaceKind


def card(folder: Path, *, kind: str = "1", subsystem: str = "pci") -> Path:
    folder.mkdir()
    (folder / "type").write_text(f"{kind}\n")
    (folder / "device").mkdir()
    (folder.parent / subsystem).mkdir(exist_ok=True)
    (folder / "device/subsystem").symlink_to(folder.parent / subsystem)
    return folder


def virtual(folder: Path, *, kind: str = "1", has: str | None = None) -> Path:
    folder.mkdir()
    (folder / "type").write_text(f"{kind}\n")
    if has is not None:
        (folder / has).mkdir()
    return folder


def test_cards(tmp_path: Path) -> None:
    assert kind_by_sysfs(card(tmp_path / "eth0"), ["up"]) is InterfaceKind.ETHERNET
    thunderbolt = card(tmp_path / "thunderbolt0", subsystem="thunderbolt")
    assert kind_by_sysfs(thunderbolt, ["up"]) is InterfaceKind.THUNDERBOLT
    wifi = card(tmp_path / "wlan0")
    (wifi / "wireless").mkdir()
    assert kind_by_sysfs(wifi, ["up"]) is InterfaceKind.WIFI


@pytest.mark.parametrize(
    ("name", "kind", "has", "flags", "expected"),
    [
        ("veth1", "1", None, ["up", "broadcast"], InterfaceKind.ETHERNET),
        ("br0", "1", "bridge", ["up"], InterfaceKind.BRIDGE),
        ("wlan1", "1", "phy80211", ["up"], InterfaceKind.WIFI),
        ("lo", "772", None, ["up", "loopback"], InterfaceKind.LOOPBACK),
        ("dummy0", "1", None, ["broadcast", "noarp"], InterfaceKind.OTHER),
        ("tap0", "1", "tun_flags", ["up"], InterfaceKind.OTHER),
        ("tun0", "65534", "tun_flags", ["up"], InterfaceKind.OTHER),
        ("wg0", "65534", None, ["up"], InterfaceKind.OTHER),
    ],
)
def test_interfaces_without_a_card(
    tmp_path: Path, name: str, kind: str, has: str | None, flags: list[str], expected: InterfaceKind
) -> None:
    assert kind_by_sysfs(virtual(tmp_path / name, kind=kind, has=has), flags) is expected


def test_another_namespaces_sys(tmp_path: Path) -> None:
    assert kind_by_sysfs(tmp_path / "veth1", ["up"]) is InterfaceKind.ETHERNET
    assert kind_by_sysfs(tmp_path / "lo", ["up", "loopback"]) is InterfaceKind.LOOPBACK


def test_names_of_macos() -> None:
    names = ("lo0", "bridge100", "en12", "utun4", "awdl0", "anpi0", "env1")
    assert [kind_by_name(name) for name in names] == [
        InterfaceKind.LOOPBACK,
        InterfaceKind.BRIDGE,
        InterfaceKind.ETHERNET,
        *[InterfaceKind.OTHER] * 4,
    ]


def test_a_bridges_members_are_told(tmp_path: Path) -> None:
    here = local_interfaces("linux", tmp_path)[0].name
    for member in ("veth2", "veth1"):
        (tmp_path / "sys/class/net" / here / "brif" / member).mkdir(parents=True)
    found = {interface.name: interface for interface in local_interfaces("linux", tmp_path)}
    assert found[here].members == ("veth1", "veth2")
    found = {interface.name: interface for interface in local_interfaces("darwin", tmp_path)}
    assert found[here].members == ()


def test_an_address_that_is_none_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(address: str, netmask: str | None) -> SimpleNamespace:
        return SimpleNamespace(family=socket.AF_INET6, address=address, netmask=netmask)

    records = [record("fe80::1%lo", "ffff::%lo"), record("fd00::1", "?"), record("", None)]
    here = local_interfaces()[0].name
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {here: records})
    assert local_interfaces()[0].addresses == (Address("fe80::1", 16),)


def test_this_machine() -> None:
    found = local_interfaces()
    assert [interface.name for interface in found] == sorted(interface.name for interface in found)
    loopback = next(one for one in found if one.kind is InterfaceKind.LOOPBACK)
    assert loopback.is_up
    assert Address("127.0.0.1", 8) in loopback.addresses
    assert loopback.mtu >= 1280
    assert all("%" not in address.ip for one in found for address in one.addresses)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own files")
def test_this_linux_names_the_kinds() -> None:
    for interface in local_interfaces():
        folder = Path("/sys/class/net") / interface.name
        assert (interface.kind is InterfaceKind.BRIDGE) == (folder / "bridge").is_dir()
