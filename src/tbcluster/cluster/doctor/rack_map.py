"""Looking things up in a `RackView`: names, interfaces, and which path of a link is used."""

from dataclasses import dataclass

from tbcluster.machine import (
    Interface,
    InterfaceKind,
    LinkView,
    Machine,
    NodeState,
    NodeView,
    PathMeasurement,
    RackView,
)

KIND_NAMES = {
    InterfaceKind.THUNDERBOLT: "Thunderbolt",
    InterfaceKind.ETHERNET: "Ethernet",
    InterfaceKind.WIFI: "Wi-Fi",
    InterfaceKind.BRIDGE: "bridge",
    InterfaceKind.LOOPBACK: "loopback",
    InterfaceKind.OTHER: "another kind",
}


@dataclass(frozen=True, slots=True)
class RackMap:
    """A rack's nodes and links, as checks and tables ask for them."""

    rack: RackView

    @property
    def is_alone(self) -> bool:
        """Whether this is a machine by itself, which belongs to no cluster or cannot see it."""
        return not self.rack.cluster_id

    def online(self) -> tuple[NodeView, ...]:
        """The nodes that can be given work."""
        return tuple(node for node in self.rack.nodes if node.state is NodeState.ONLINE)

    def machines(self) -> tuple[tuple[NodeView, Machine], ...]:
        """The nodes that are there and have told what they are."""
        return tuple((node, node.machine) for node in self.online() if node.machine is not None)

    def node(self, node_id: str) -> NodeView | None:
        """None for an id that is no node's."""
        return next((node for node in self.rack.nodes if node.node_id == node_id), None)

    def name(self, node_id: str) -> str:
        """The node's name; the id itself where it is no node's."""
        node = self.node(node_id)
        return node.name if node is not None else node_id

    def links(self) -> tuple[LinkView, ...]:
        """What was measured, in the order of the nodes."""
        position = {node.node_id: place for place, node in enumerate(self.rack.nodes)}
        last = len(position)
        return tuple(
            sorted(
                self.rack.links,
                key=lambda link: (position.get(link.source, last), position.get(link.target, last)),
            )
        )

    def links_online(self) -> tuple[LinkView, ...]:
        """Those between nodes that are there now."""
        there = {node.node_id for node in self.online()}
        return tuple(
            link
            for link in self.links()
            if link.source in there and link.target in there and link.source != link.target
        )

    def kind(self, node_id: str, interface: str) -> InterfaceKind:
        """What an interface is made of; a bridge of Thunderbolt ports alone counts as that."""
        node = self.node(node_id)
        if node is None or node.machine is None:
            return InterfaceKind.OTHER
        return interface_kind(node.machine, interface)

    def kinds(self, link: LinkView, path: PathMeasurement) -> frozenset[InterfaceKind]:
        """What a path's two ends are made of."""
        return frozenset(
            (
                self.kind(link.source, path.path.interface),
                self.kind(link.target, path.path.remote_interface),
            )
        )


def find_interface(machine: Machine, name: str | None) -> Interface | None:
    """The interface of this name, if the machine has it."""
    return next((found for found in machine.interfaces if found.name == name), None)


def interface_kind(machine: Machine, name: str) -> InterfaceKind:
    """What an interface is made of, as `RackMap.kind` tells it."""
    interface = find_interface(machine, name)
    if interface is None:
        return InterfaceKind.OTHER
    if interface.kind is InterfaceKind.BRIDGE:
        members = [find_interface(machine, member) for member in interface.members]
        kinds = {member.kind for member in members if member is not None}
        if kinds == {InterfaceKind.THUNDERBOLT}:
            return InterfaceKind.THUNDERBOLT
    return interface.kind


def used_path(link: LinkView) -> PathMeasurement | None:
    """The best path that answers now: the one that carries the data plane."""
    return next((found for found in link.paths if found.path.address not in link.dead), None)
