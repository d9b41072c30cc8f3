"""The rack as the planner sees it: measured, or described by a rack file. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations

from tbcluster.cluster.chip_speeds import assumed_speed, catalogue_speed
from tbcluster.cluster.links.ranking import BITS
from tbcluster.cluster.rack_file import LinkKind, RackFile, RackLink, RackNode
from tbcluster.errors import RackFileError
from tbcluster.hardware.chips import find_chip
from tbcluster.machine import LinkView, Machine, NodeView, PathMeasurement
from tbcluster.planner.nodes import NodeSpeed, PlanLink, PlanNode, PlanRack

GIB = 1 << 30
GBIT = 1e9 / BITS
# macOS lets Metal take two thirds of a small Mac's memory and three quarters of a large one's by
# default (`recommendedMaxWorkingSetSize`); 0.78 to 0.88 were seen on Macs of 48 GB and more. What
# a node measures replaces it.
SMALL_MAC_GIB = 36
SMALL_MAC_SHARE, MAC_SHARE = 2 / 3, 0.75
# Links that nobody has measured: (seconds one way for a small message, bytes a second), with IP.
# 300 us between programs over Thunderbolt: guruswami-ai/mlx-benchmarks and others. They are the IP
# stack's and its wake-ups', through which Ethernet goes, too, and of Ethernet nobody has published
# more than the wire's 10 to 25 us: a cable is never taken for slower than the network beside it.
# Bandwidth over Thunderbolt 3 and 4: iperf3 13 and 16.4 Gb/s. Nobody has published IP over
# Thunderbolt 5 beyond that. Ethernet carries 94 % of its line rate as TCP; Wi-Fi is a guess.
IP_S, WIFI_S = 300e-6, 3e-3
LINK_KINDS: Mapping[LinkKind, tuple[float, float]] = {
    "thunderbolt5": (IP_S, 16.4 * GBIT),
    "thunderbolt4": (IP_S, 16.4 * GBIT),
    "thunderbolt3": (IP_S, 13 * GBIT),
    "ethernet10": (IP_S, 9.4 * GBIT),
    "ethernet5": (IP_S, 4.7 * GBIT),
    "ethernet2.5": (IP_S, 2.35 * GBIT),
    "ethernet1": (IP_S, 0.94 * GBIT),
    "wifi": (WIFI_S, 0.4 * GBIT),
}
# All nodes reach the head node, or they would be none: they share a network, beside Thunderbolt,
# whether the file names it or not.
NETWORK: LinkKind = "ethernet1"
NETWORKS: frozenset[LinkKind] = frozenset(
    ("ethernet10", "ethernet5", "ethernet2.5", "ethernet1", "wifi")
)
# Hidden states of a decode step: two sequences of a model 8192 wide, in 16 bits.
DECODE_BYTES = 32 * 1024


def plan_rack(
    nodes: Sequence[NodeView],
    links: Iterable[LinkView],
    speeds: Mapping[str, NodeSpeed],
    kind: str,
    taken_bytes: Mapping[str, int] | None = None,
) -> PlanRack:
    """A rack whose nodes are known, head first.

    Args:
        speeds: What was measured, by node id; the others' are the catalogue's, or assumed.
        kind: Of the model's weights (`ModelProfile.weight_kind`).
        taken_bytes: What other models hold, by node name.
    """
    taken = taken_bytes or {}
    known = sorted(
        (node for node in nodes if node.machine is not None),
        key=lambda node: (not node.is_head, node.name),
    )
    by_id = {node.node_id: node for node in known}
    planned = [
        PlanNode(
            node.name,
            max(0, memory_for_models(node.machine) - taken.get(node.name, 0)),
            speeds.get(node.node_id) or speed_by_name(node.machine, kind),
            node.is_head,
        )
        for node in known
        if node.machine is not None
    ]
    ways = {}
    for link in links:
        path = _best(link)
        source, target = by_id.get(link.source), by_id.get(link.target)
        if path is not None and source is not None and target is not None:
            ways[source.name, target.name] = _measured_link(path, source.machine)
    return PlanRack(tuple(planned), ways)


def one_machine(memory_bytes: int, speed: NodeSpeed, name: str = "") -> PlanRack:
    """A machine that belongs to no rack."""
    return PlanRack((PlanNode(name, memory_bytes, speed, is_head=True),), {})


def rack_of_file(file: RackFile, kind: str) -> PlanRack:
    """A rack as its file describes it, head first: nothing of it needs to exist.

    Raises:
        RackFileError: It lacks what a plan needs.
    """
    ordered = sorted(file.nodes, key=lambda node: node.name != file.head)
    nodes = tuple(_listed_node(node, kind, is_head=node.name == file.head) for node in ordered)
    ways = {
        (one.name, other.name): _listed_link(file.links, {one.name, other.name})
        for one, other in permutations(ordered, 2)
    }
    return PlanRack(nodes, ways)


def memory_for_models(machine: Machine | None) -> int:
    """Bytes that models may take there: what MLX says; none where it does not run."""
    compute = machine.compute if machine is not None else None
    return compute.working_set_bytes if compute is not None else 0


def speed_by_name(machine: Machine | None, kind: str) -> NodeSpeed:
    """The speed of a machine that has not been measured."""
    compute = machine.compute if machine is not None else None
    chip = find_chip(machine.chip) if machine is not None and machine.chip is not None else None
    if chip is not None and (compute is None or compute.backend == "Metal GPU"):
        return catalogue_speed(chip, kind)
    return assumed_speed(kind, compute.backend if compute is not None else "CPU")


def _best(link: LinkView) -> PathMeasurement | None:
    alive = (path for path in link.paths if path.path.address not in link.dead)
    return next(alive, None)


def _measured_link(path: PathMeasurement, source: Machine | None) -> PlanLink:
    """Half a round trip, and the rate of large messages: a hop's own few kilobytes take little."""
    gbps = path.large_gbps or path.small_gbps
    interfaces = source.interfaces if source is not None else ()
    kinds = (str(one.kind) for one in interfaces if one.name == path.path.interface)
    return PlanLink(path.round_trip_us / 2e6, max(1.0, gbps * GBIT), next(kinds, ""))


def _listed_node(node: RackNode, kind: str, *, is_head: bool) -> PlanNode:
    if node.memory_gb is None:
        raise RackFileError(f"{node.name} has no memory_gb: a plan needs it, such as 64")
    if node.chip is None:
        raise RackFileError(f'{node.name} has no chip: a plan needs it, such as "M4 Pro"')
    chip = find_chip(node.chip, node.gpu_cores)
    speed = catalogue_speed(chip, kind) if chip is not None else assumed_speed(kind, "Metal GPU")
    share = SMALL_MAC_SHARE if node.memory_gb <= SMALL_MAC_GIB else MAC_SHARE
    return PlanNode(node.name, int(node.memory_gb * GIB * share), speed, is_head)


def _listed_link(links: Sequence[RackLink], ends: set[str]) -> PlanLink:
    """The best way between the two for a decode step: a cable, or the network that all share."""
    listed = [link for link in links if set(link.between) == ends]
    ways = [_cable(link.kind, link.gbps) for link in listed]
    if not any(link.kind in NETWORKS for link in listed):
        ways.append(_cable(NETWORK, None))
    return min(ways, key=_decode_message_s)


def _decode_message_s(way: PlanLink) -> float:
    return way.latency_s + DECODE_BYTES / way.bytes_per_s


def _cable(kind: LinkKind, gbps: float | None) -> PlanLink:
    latency_s, bytes_per_s = LINK_KINDS[kind]
    if gbps is not None:
        bytes_per_s = min(bytes_per_s, gbps * GBIT)
    return PlanLink(latency_s, bytes_per_s, kind)
