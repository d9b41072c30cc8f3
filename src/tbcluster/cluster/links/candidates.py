"""Which ways to a node are worth a try (pure)."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from tbcluster.cluster.links.kinds import kind_order, path_order
from tbcluster.machine import Interface, InterfaceKind, Path

MAX_CANDIDATES = 64
# Routed addresses are few and always worth a try; link-local ones multiply with the interfaces.
MAX_ROUTED = 32

IpInterface = IPv4Interface | IPv6Interface


def candidates(local: Sequence[Interface], remote: Sequence[Interface]) -> tuple[Path, ...]:
    """Ways from a machine with `local` interfaces to one with `remote`, the likeliest first.

    Each address of the other machine is one, and each of its IPv6 link-local addresses one for
    every interface here that could be on the same cable: a wrong one simply does not answer. Of
    other addresses the kernel decides where they leave: `interface` is a guess there, by the
    networks, and empty where none contains the address.
    """
    ours, theirs = _usable(local), _usable(remote)
    routed = sorted(_routed(ours, theirs), key=lambda path: _routed_order(path, ours, theirs))
    scoped = sorted(_scoped(ours, theirs), key=lambda path: path_order(path, ours, theirs))
    kept = list(dict.fromkeys(routed))[:MAX_ROUTED]
    kept += list(dict.fromkeys(scoped))[: MAX_CANDIDATES - len(kept)]
    return tuple(sorted(kept, key=lambda path: path_order(path, ours, theirs)))


def interface_of(ip: str, local: Sequence[Interface]) -> str | None:
    """The interface that has this address."""
    wanted = ip_address(ip)
    owners = (one.name for one in local if any(its.ip == wanted for its in _addresses(one)))
    return next(owners, None)


def _usable(interfaces: Sequence[Interface]) -> list[Interface]:
    """Those that are up. A bridge's members count for its kind, but not as ways of their own: the
    bridge takes what arrives there."""
    up = [one for one in interfaces if one.is_up and one.kind is not InterfaceKind.LOOPBACK]
    bridged = {name for one in up if one.kind is InterfaceKind.BRIDGE for name in one.members}
    return [replace(one, addresses=()) if one.name in bridged else one for one in up]


def _routed(local: Sequence[Interface], remote: Sequence[Interface]) -> Iterator[Path]:
    is_ambiguous = sum(_has_ipv4_link_local(interface) for interface in local) > 1
    for interface in remote:
        for address in _addresses(interface):
            if _is_scoped(address) or not _is_for_one_host(address):
                continue
            # 169.254/16 behind several interfaces: the kernel tries one of them, perhaps wrongly.
            if address.ip.is_link_local and is_ambiguous and _has_ipv6_link_local(interface):
                continue
            yield Path(_leaves_by(address, local), str(address.ip), interface.name)


def _scoped(local: Sequence[Interface], remote: Sequence[Interface]) -> Iterator[Path]:
    scopes = [interface.name for interface in local if _has_ipv6_link_local(interface)]
    for interface in remote:
        for address in filter(_is_scoped, _addresses(interface)):
            for scope in scopes:
                yield Path(scope, f"{address.ip}%{scope}", interface.name)


def _routed_order(
    path: Path, local: Sequence[Interface], remote: Sequence[Interface]
) -> tuple[bool, bool, int]:
    """An address that this machine has too (as containers' bridges do) leads to itself, unless
    both nodes share the machine."""
    is_own = interface_of(path.address, local) is not None
    return is_own, not path.interface, path_order(path, local, remote)


def _leaves_by(address: IpInterface, local: Sequence[Interface]) -> str:
    """The best interface whose network has this address."""
    fitting = (one for one in local if any(address.ip in its.network for its in _addresses(one)))
    best = min(fitting, key=lambda interface: kind_order(interface, local), default=None)
    return "" if best is None else best.name


def _addresses(interface: Interface) -> list[IpInterface]:
    """What does not parse is left out: another node may have said it."""
    found = []
    for address in interface.addresses:
        with suppress(ValueError):
            found.append(ip_interface(f"{address.ip}/{address.prefix_length}"))
    return found


def _is_for_one_host(address: IpInterface) -> bool:
    ip = address.ip
    return not (ip.is_loopback or ip.is_multicast or ip.is_unspecified)


def _has_ipv4_link_local(interface: Interface) -> bool:
    addresses = _addresses(interface)
    return any(address.version == 4 and address.ip.is_link_local for address in addresses)


def _has_ipv6_link_local(interface: Interface) -> bool:
    return any(_is_scoped(address) for address in _addresses(interface))


def _is_scoped(address: IpInterface) -> bool:
    return address.version == 6 and address.ip.is_link_local
