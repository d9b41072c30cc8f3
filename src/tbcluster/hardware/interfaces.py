"""This machine's network interfaces, quickly: as often as one likes, and without other programs."""

import socket
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

import psutil

from tbcluster.machine import Address, Interface, InterfaceKind

# ARPHRD_ETHER of Linux's if_arp.h: tunnels and the like have other types.
_ETHERNET_TYPE = "1"


def local_interfaces(platform: str = sys.platform, root: Path = Path("/")) -> tuple[Interface, ...]:
    """The interfaces of this process's network namespace, by name.

    On macOS every network card counts as Ethernet, and bridges have no members: what they really
    are takes its tools, and is told by `this_machine`.

    Args:
        root: Folder of sys, on Linux.
    """
    addresses = psutil.net_if_addrs()
    found = []
    for name, stats in sorted(psutil.net_if_stats().items()):
        folder = root / "sys/class/net" / name
        is_mac = platform == "darwin"
        flags = stats.flags.split(",")
        found.append(
            Interface(
                name=name,
                kind=kind_by_name(name) if is_mac else kind_by_sysfs(folder, flags),
                is_up=stats.isup,
                mtu=stats.mtu,
                addresses=_addresses(addresses.get(name, ())),
                members=() if is_mac else _members(folder),
            )
        )
    return tuple(found)


def kind_by_name(name: str) -> InterfaceKind:
    """What an interface of macOS is, as far as its name tells."""
    prefixes = {
        "lo": InterfaceKind.LOOPBACK,
        "bridge": InterfaceKind.BRIDGE,
        "en": InterfaceKind.ETHERNET,
    }
    return prefixes.get(name.rstrip("0123456789"), InterfaceKind.OTHER)


def kind_by_sysfs(folder: Path, flags: Collection[str]) -> InterfaceKind:
    """What an interface of Linux is, by its folder under /sys/class/net, which is not there where
    /sys is another namespace's."""
    if "loopback" in flags:
        return InterfaceKind.LOOPBACK
    if (folder / "bridge").is_dir():
        return InterfaceKind.BRIDGE
    if (folder / "wireless").is_dir() or (folder / "phy80211").exists():
        return InterfaceKind.WIFI
    if (folder / "device/subsystem").resolve().name == "thunderbolt":
        return InterfaceKind.THUNDERBOLT
    # Dummies and mirrors of traffic call themselves Ethernet, but ask nobody for addresses.
    is_inner = (folder / "tun_flags").exists() or "noarp" in flags
    if is_inner or _type(folder) != _ETHERNET_TYPE:
        return InterfaceKind.OTHER
    return InterfaceKind.ETHERNET


class _Snicaddr(Protocol):
    """psutil's record of an address."""

    @property
    def family(self) -> int: ...
    @property
    def address(self) -> str: ...
    @property
    def netmask(self) -> str | None: ...


def _addresses(records: Iterable[_Snicaddr]) -> tuple[Address, ...]:
    found = []
    for record in records:
        if record.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(ValueError):  # a tunnel may have anything there
                found.append(_address(record.address, record.netmask))
    return tuple(found)


def _address(text: str, netmask: str | None) -> Address:
    ip = ip_address(text.partition("%")[0])
    mask = ip_address(netmask.partition("%")[0]) if netmask else None
    return Address(str(ip), int(mask).bit_count() if mask else ip.max_prefixlen)


def _members(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(member.name for member in (folder / "brif").iterdir()))
    except OSError:
        return ()


def _type(folder: Path) -> str:
    try:
        return (folder / "type").read_text(encoding="ascii").strip()
    except OSError:
        return _ETHERNET_TYPE
