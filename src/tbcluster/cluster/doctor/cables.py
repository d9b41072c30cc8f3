"""Which Macs are cabled to which over Thunderbolt, and where the cables form loops."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tbcluster.cluster.doctor.rack_map import RackMap, find_interface
from tbcluster.machine import Interface, InterfaceKind, Machine, NodeView, ThunderboltPort


@dataclass(frozen=True, slots=True)
class End:
    """A cable's end: a port of a node."""

    node: NodeView
    machine: Machine
    port: ThunderboltPort

    @property
    def socket(self) -> str:
        """The port as it is printed on the machine's case and in its settings."""
        return f"Thunderbolt {self.port.receptacle}"

    @property
    def bridge(self) -> Interface | None:
        """The bridge that this port's interface is a member of, if one is on."""
        return next(
            (
                found
                for found in self.machine.interfaces
                if found.kind is InterfaceKind.BRIDGE
                and self.port.interface in found.members
                and found.is_up
                and found.is_service_enabled
            ),
            None,
        )

    @property
    def interface(self) -> Interface | None:
        """The port's network interface."""
        return find_interface(self.machine, self.port.interface)


@dataclass(frozen=True, slots=True)
class Cable:
    """A connection between two nodes, whatever lies in between."""

    ends: tuple[End, End]

    @property
    def is_direct(self) -> bool:
        """Whether it is a cable and nothing else: no dock and no drive."""
        return not any(end.port.via for end in self.ends)


def find_cables(rack: RackMap) -> tuple[Cable, ...]:
    """Every pair of ports of two nodes that name each other, once."""
    ends = {
        port.port_id: End(node, machine, port)
        for node, machine in rack.machines()
        for port in machine.thunderbolt
        if port.port_id
    }
    found: dict[frozenset[str], Cable] = {}
    for port_id, end in ends.items():
        other = ends.get(end.port.peer_port_id or "")
        if other is None or other.port.peer_port_id != port_id:
            continue
        if other.node.node_id != end.node.node_id and other.port.port_id:
            found.setdefault(frozenset((port_id, other.port.port_id)), Cable((end, other)))
    return tuple(found.values())


def find_loops(edges: Iterable[tuple[str, str]]) -> tuple[frozenset[str], ...]:
    """The groups of three or more that are connected in loops. Two edges between the same two
    are none: macOS joins them."""
    neighbours: dict[str, set[str]] = defaultdict(set)
    for a, b in edges:
        if a != b:
            neighbours[a].add(b)
            neighbours[b].add(a)
    # An edge is part of a loop if its ends stay connected without it.
    looped: dict[str, set[str]] = {
        a: {b for b in others if b in _reached(neighbours, a, without=(a, b))}
        for a, others in neighbours.items()
    }
    loops = {frozenset(_reached(looped, a)) for a, others in looped.items() if others}
    return tuple(sorted(loops, key=sorted))


def _reached(
    neighbours: dict[str, set[str]], start: str, without: tuple[str, str] | None = None
) -> set[str]:
    """Everything connected to `start`; `without` is an edge that does not count."""
    reached, to_visit = {start}, [start]
    while to_visit:
        here = to_visit.pop()
        for there in neighbours[here] - reached:
            if without is None or {here, there} != set(without):
                reached.add(there)
                to_visit.append(there)
    return reached
