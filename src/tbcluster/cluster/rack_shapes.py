"""Racks by what they are made of: so many Macs of a kind, cabled as their ports allow. Pure, but
for the table of chips."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from tbcluster.cluster.plan_rack import NETWORKS, listed_chip, rack_of_file
from tbcluster.cluster.rack_file import LinkKind, RackFile, RackLink, RackNode
from tbcluster.errors import PlanError, RackFileError
from tbcluster.hardware.chips import Chip, find_chip
from tbcluster.planner.network_links import NetworkLinks
from tbcluster.planner.nodes import PlanLink, PlanNode, PlanRack

# Of a Mac whose ports nobody has listed.
FEWEST_PORTS = 2
MAKER = "Apple "


@dataclass(frozen=True, slots=True)
class NodeKind:
    """A kind of machine: "M4 Pro" with 64 GB."""

    chip: str
    memory_gb: float
    gpu_cores: int | None = None

    def __str__(self) -> str:
        return f"{self.chip} {self.memory_gb:g} GB"

    @property
    def stem(self) -> str:
        """What its nodes' names begin with: "m4-pro-64", or "m4-pro-20c-64"."""
        chip = self.chip.removeprefix(MAKER).lower().replace(" ", "-")
        cores = f"{self.gpu_cores}c-" if self.gpu_cores else ""
        return f"{chip}-{cores}{self.memory_gb:g}"


class RackShapes:
    """Makes racks for a model of some kind of weights (`ModelProfile.weight_kind`).

    Args:
        link: How nodes are linked: cables where their ports allow, beside gigabit Ethernet, or a
            network that all of them share.
    """

    def __init__(self, weight_kind: str, link: LinkKind = "thunderbolt5") -> None:
        self._weight_kind = weight_kind
        self._link: LinkKind = link
        self._nodes: dict[NodeKind, PlanNode] = {}
        self._ways: tuple[PlanLink, PlanLink] | None = None

    def rack(self, groups: Sequence[tuple[NodeKind, int]]) -> PlanRack:
        """So many nodes of each kind, the first one the head. Those of a kind are cabled to each
        other: all pairs where there are ports for it, else in a ring.

        Raises:
            PlanError: A chip is not known.
        """
        nodes: list[PlanNode] = []
        cables: dict[tuple[str, str], PlanLink] = {}
        numbers: Counter[str] = Counter()
        for kind, number in groups:
            model = self.node(kind)
            first = len(nodes)
            for _ in range(number):
                numbers[kind.stem] += 1
                name = f"{kind.stem}-{numbers[kind.stem]}"
                nodes.append(replace(model, name=name, is_head=not nodes))
            names = [node.name for node in nodes[first:]]
            if self._link not in NETWORKS:
                cable, _ = self.ways(kind)
                for one, other in cabling(names, ports_of(kind.chip)):
                    cables[one, other] = cables[other, one] = cable
        names = [node.name for node in nodes]
        return PlanRack(tuple(nodes), NetworkLinks(names, self.ways(groups[0][0])[1], cables))

    def of_one_kind(self, kind: NodeKind, number: int) -> PlanRack:
        """So many nodes of a kind; see `rack`."""
        return self.rack([(kind, number)])

    def node(self, kind: NodeKind) -> PlanNode:
        """One machine of this kind.

        Raises:
            PlanError: Its chip is not known.
        """
        if kind not in self._nodes:
            self._nodes[kind] = rack_of_file(_pair(kind), self._weight_kind).nodes[0]
        return self._nodes[kind]

    def ways(self, kind: NodeKind) -> tuple[PlanLink, PlanLink]:
        """A cable of the kind that was asked for, and the network that all share."""
        if self._ways is None:
            given = rack_of_file(_pair(kind, self._link), self._weight_kind)
            usual = rack_of_file(_pair(kind), self._weight_kind)
            cable, network = given.links["a", "b"], usual.links["a", "b"]
            self._ways = (cable, cable if self._link in NETWORKS else network)
        return self._ways


def ports_of(chip: str) -> int:
    """Thunderbolt ports of the machine a chip is in; none where it has none."""
    known = find_chip(chip)
    if known is None or known.thunderbolt is None:
        return 0
    return known.ports or FEWEST_PORTS


def cabling(names: Sequence[str], ports: int) -> list[tuple[str, str]]:
    """Cables between equal machines: all pairs if each has the ports for it, else a ring; none
    where they have no two ports."""
    if ports < FEWEST_PORTS:
        return []
    if len(names) <= ports + 1:
        return list(combinations(names, 2))
    return [(name, names[(at + 1) % len(names)]) for at, name in enumerate(names)]


def check_chip(chip: str, own: Sequence[Chip] = ()) -> None:
    """Make sure that it is known.

    Args:
        own: Those of a rack file.

    Raises:
        PlanError: It is not.
    """
    try:
        listed_chip(chip, own=own)
    except RackFileError as error:
        raise PlanError(str(error)) from error


def _pair(kind: NodeKind, link: LinkKind | None = None) -> RackFile:
    check_chip(kind.chip)
    a, b = (
        RackNode(name=name, chip=kind.chip, memory_gb=kind.memory_gb, gpu_cores=kind.gpu_cores)
        for name in ("a", "b")
    )
    links = () if link is None else (RackLink(between=("a", "b"), kind=link),)
    return RackFile(name="pair", head="a", nodes=(a, b), links=links)
