"""What a path is made of, from the interfaces at its two ends."""

from collections.abc import Sequence

from tbcluster.machine import Interface, InterfaceKind, Path

_ORDER = (
    InterfaceKind.THUNDERBOLT,
    InterfaceKind.ETHERNET,
    InterfaceKind.WIFI,
    InterfaceKind.OTHER,
)


def kind_order(interface: Interface, others: Sequence[Interface]) -> int:
    """0 for Thunderbolt, then Ethernet, Wi-Fi, the rest; a bridge is as good as its best member,
    looked up in the machine's `others`."""
    if interface.kind is InterfaceKind.BRIDGE:
        members = [other for other in others if other.name in interface.members]
        return min((_order(member.kind) for member in members), default=len(_ORDER) - 1)
    return _order(interface.kind)


def path_order(path: Path, local: Sequence[Interface], remote: Sequence[Interface]) -> int:
    """`kind_order` of the worse of its two ends; of unknown interfaces, the last."""
    return max(_named_order(path.interface, local), _named_order(path.remote_interface, remote))


def _named_order(name: str, interfaces: Sequence[Interface]) -> int:
    found = (kind_order(one, interfaces) for one in interfaces if one.name == name)
    return next(found, len(_ORDER) - 1)


def _order(kind: InterfaceKind) -> int:
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER) - 1
