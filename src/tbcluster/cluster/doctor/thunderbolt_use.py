"""Nodes that are cabled over Thunderbolt speak to each other over it."""

import shlex
from collections.abc import Iterator

from tbcluster.cluster.doctor import amounts
from tbcluster.cluster.doctor.cables import Cable, End, find_cables
from tbcluster.cluster.doctor.finding import Finding, ok, warning
from tbcluster.cluster.doctor.network import MEASURE
from tbcluster.cluster.doctor.rack_map import RackMap, used_path
from tbcluster.machine import Interface, InterfaceKind, LinkView, PathMeasurement

ONLY_THUNDERBOLT = frozenset((InterfaceKind.THUNDERBOLT,))


def check_thunderbolt_use(rack: RackMap) -> Iterator[Finding]:
    """For each two nodes with a cable: what keeps their messages off it."""
    pairs: dict[frozenset[str], list[Cable]] = {}
    for cable in find_cables(rack):
        pairs.setdefault(frozenset(end.node.node_id for end in cable.ends), []).append(cable)
    for pair, cables in pairs.items():
        links = [link for link in rack.links_online() if {link.source, link.target} == pair]
        yield from _check_pair(rack, cables, links)


def _check_pair(rack: RackMap, cables: list[Cable], links: list[LinkView]) -> Iterator[Finding]:
    here, there = cables[0].ends
    if links and all(_uses_thunderbolt(rack, link) for link in links):
        yield ok("thunderbolt-use", here.node.name, f"it speaks to {there.node.name} over it")
        return
    silent = [found for cable in cables for found in _silent_ends(cable)]
    for end, other, interface in silent:
        yield warning(
            "thunderbolt-use",
            end.node.name,
            f"{end.socket} is cabled to {other.node.name}, but {interface.name} has no address",
            _address_fix(end, interface),
        )
    if not silent:
        for link in links:
            used = used_path(link)
            if used is not None and not _uses_thunderbolt(rack, link):
                yield _other_path(rack, link, used)


def _uses_thunderbolt(rack: RackMap, link: LinkView) -> bool:
    path = used_path(link)
    return path is not None and rack.kinds(link, path) == ONLY_THUNDERBOLT


def _silent_ends(cable: Cable) -> Iterator[tuple[End, End, Interface]]:
    """Each end that has no address, the other end, and the interface that should have one: the
    bridge that the port belongs to, or the port's own."""
    for end, other in (cable.ends, cable.ends[::-1]):
        interface = end.bridge or end.interface
        if interface is not None and not interface.addresses:
            yield end, other, interface


def _address_fix(end: End, interface: Interface) -> str:
    if interface.service is None:
        # A port that has left a bridge has no service of its own.
        port = "Thunderbolt Bridge" if interface.kind is InterfaceKind.BRIDGE else end.socket
        return f"sudo networksetup -createnetworkservice {shlex.quote(port)} {shlex.quote(port)}"
    service = shlex.quote(interface.service)
    if not interface.is_service_enabled:
        return f"sudo networksetup -setnetworkserviceenabled {service} on"
    return f"sudo networksetup -setdhcp {service}"


def _other_path(rack: RackMap, link: LinkView, used: PathMeasurement) -> Finding:
    cabled = [
        found
        for found in link.paths
        if rack.kinds(link, found) == ONLY_THUNDERBOLT and found.path.address not in link.dead
    ]
    why = f"was measured slower ({_numbers(cabled[0])})" if cabled else "does not answer"
    instead = f"{used.path.interface} ({_numbers(used)})"
    return warning(
        "thunderbolt-use",
        rack.name(link.source),
        f"it is cabled to {rack.name(link.target)}, but uses {instead}: Thunderbolt {why}",
        f"try another cable, let tbcluster through the firewalls, then: {MEASURE}",
    )


def _numbers(path: PathMeasurement) -> str:
    return f"{amounts.round_trip(path.round_trip_us)}, {amounts.rate(path.large_gbps)}"
