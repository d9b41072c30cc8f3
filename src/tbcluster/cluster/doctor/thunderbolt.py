"""Thunderbolt cables: their speed, docks in between, loops over bridges, RDMA."""

import re
import shlex
from collections.abc import Iterable, Iterator

from tbcluster.cluster.doctor.cables import Cable, End, find_cables, find_loops
from tbcluster.cluster.doctor.finding import Finding, failed, ok, warning
from tbcluster.cluster.doctor.rack_map import RackMap
from tbcluster.cluster.doctor.versions import UPDATE
from tbcluster.machine import Machine, NodeView, RdmaState

TB5 = 5
TB5_GBPS = 80
MACOS = re.compile(r"macOS (\d{1,4})(?:\.(\d{1,4}))?")
RDMA_SINCE = (26, 2)
RDMA_RECOVERY = "start up from Recovery, open its Terminal, and there: rdma_ctl enable"


def check_cables(rack: RackMap) -> Iterator[Finding]:
    """A cable between two Thunderbolt 5 ports runs at their speed."""
    for cable in find_cables(rack):
        if cable.is_direct:
            yield from _cable_speed(cable)


def _cable_speed(cable: Cable) -> Iterator[Finding]:
    here, there = cable.ends
    speeds = [end.port.link_gbps for end in cable.ends if end.port.link_gbps is not None]
    if not speeds:
        return
    gbps = min(speeds)
    what = f"{here.socket} to {there.node.name} ({there.socket}) is linked at {gbps} Gb/s"
    are_tb5 = all((end.port.generation or 0) >= TB5 for end in cable.ends)
    if are_tb5 and gbps < TB5_GBPS:
        yield warning(
            "thunderbolt-cable",
            here.node.name,
            f"{what}, although both ports can do {TB5_GBPS}: it is no Thunderbolt 5 cable",
            f"connect {here.socket} of {here.node.name} and {there.socket} of {there.node.name} "
            "with a Thunderbolt 5 cable",
        )
    else:
        yield ok("thunderbolt-cable", here.node.name, what)


def check_docks(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """Two Macs are cabled directly: a dock shares the cable and often slows it."""
    for port in machine.thunderbolt:
        if port.via and (port.peer_port_id or port.peer_model):
            speed = f" at {port.link_gbps} Gb/s" if port.link_gbps is not None else ""
            peer = f" ({port.peer_model})" if port.peer_model else ""
            yield warning(
                "thunderbolt-dock",
                node.name,
                f"Thunderbolt {port.receptacle} leads to another Mac{peer} through "
                f"{', '.join(port.via)}{speed}",
                "connect the two Macs directly with a Thunderbolt cable",
            )


def check_bridge_loops(rack: RackMap) -> Iterator[Finding]:
    """Bridges over a loop of cables send every broadcast around it for ever."""
    cables = find_cables(rack)
    bridged = [cable for cable in cables if all(end.bridge for end in cable.ends)]
    storms = find_loops(_edges(bridged))
    for storm in storms:
        names = ", ".join(sorted(rack.name(node_id) for node_id in storm))
        for end in _bridge_ends(bridged, storm):
            yield failed(
                "bridge-loop",
                end.node.name,
                f"{names} are cabled in a loop, and Thunderbolt Bridge is on: a broadcast storm",
                _bridge_off(end),
            )
    if storms:
        return
    if find_loops(_edges(cables)):
        yield ok("bridge-loop", None, "cabled in a loop that no bridge closes")
    elif cables:
        yield ok("bridge-loop", None, "the Thunderbolt cables form no loop")


def _edges(cables: Iterable[Cable]) -> list[tuple[str, str]]:
    return [(cable.ends[0].node.node_id, cable.ends[1].node.node_id) for cable in cables]


def _bridge_ends(cables: list[Cable], storm: frozenset[str]) -> list[End]:
    """One end for each bridge within the loop."""
    ends = {
        (end.node.node_id, end.bridge.name): end
        for cable in cables
        if {end.node.node_id for end in cable.ends} <= storm
        for end in cable.ends
        if end.bridge
    }
    return sorted(ends.values(), key=lambda end: end.node.name)


def _bridge_off(end: End) -> str:
    bridge = end.bridge
    if bridge is None or bridge.service is None:
        return f"sudo ifconfig {shlex.quote(bridge.name if bridge else 'bridge0')} down"
    return f"sudo networksetup -setnetworkserviceenabled {shlex.quote(bridge.service)} off"


def check_rdma(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """RDMA between Thunderbolt 5 ports; nothing here needs it, so most of this is advice."""
    version = _macos_version(machine)
    if version is None or not any((p.generation or 0) >= TB5 for p in machine.thunderbolt):
        return
    if version < RDMA_SINCE:
        yield ok("rdma", node.name, f"{machine.system} has none: it came with 26.2", UPDATE)
    elif machine.rdma.state is RdmaState.ENABLED and version == RDMA_SINCE:
        yield warning(
            "rdma",
            node.name,
            "enabled on macOS 26.2, where damaged data has been reported; 26.3 is safer",
            UPDATE,
        )
    elif machine.rdma.state is RdmaState.DISABLED and _has_rdma_peer(rack, node, machine):
        yield ok("rdma", node.name, "disabled here, enabled on other nodes", RDMA_RECOVERY)
    elif machine.rdma.state is not RdmaState.ABSENT:
        yield ok("rdma", node.name, machine.rdma.state.value)


def _has_rdma_peer(rack: RackMap, node: NodeView, machine: Machine) -> bool:
    return any(port.peer_has_rdma for port in machine.thunderbolt) or any(
        other.rdma.state is RdmaState.ENABLED
        for who, other in rack.machines()
        if who.node_id != node.node_id
    )


def _macos_version(machine: Machine) -> tuple[int, int] | None:
    found = MACOS.match(machine.system)
    return (int(found[1]), int(found[2] or 0)) if found else None
