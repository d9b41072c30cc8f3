"""The rack as the planner sees it: measured, or described by a rack file. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations

from tbcluster.cluster.chip_speeds import assumed_speed, catalogue_speed
from tbcluster.cluster.links.ranking import BITS
from tbcluster.cluster.own_chips import own_chips
from tbcluster.cluster.rack_file import LinkKind, RackFile, RackLink, RackNode
from tbcluster.errors import RackFileError
from tbcluster.hardware.chips import Chip, find_chip, near_chips
from tbcluster.hardware.folders import config_folder
from tbcluster.machine import LinkView, Machine, NodeView, PathMeasurement
from tbcluster.planner.nodes import NodePower, NodeSpeed, PlanLink, PlanNode, PlanRack

GIB = 1 << 30
GBIT = 1e9 / BITS
# macOS lets Metal take two thirds of a small Mac's memory and three quarters of a large one's by
# default (`recommendedMaxWorkingSetSize`); 0.78 to 0.88 were seen on Macs of 48 GB and more. What
# a node measures replaces it.
SMALL_MAC_GIB = 36
SMALL_MAC_SHARE, MAC_SHARE = 2 / 3, 0.75
# A machine that decodes draws this share of what lies between idle and its maximum: an M3 Ultra of
# 512 GB that runs DeepSeek R1 in 4 bits was measured at about 155 W (ktransformers issue #1207);
# Apple gives 9 and 270 W. Its peak in prompts was 290 W.
DECODE_POWER = 0.56
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
            chip_power(chip := chip_by_name(node.machine)),
            chip.price_usd(node.machine.memory_bytes / GIB) if chip is not None else None,
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
    own = [table.chip() for table in file.chips]
    nodes = tuple(_listed_node(node, kind, own, is_head=node.name == file.head) for node in ordered)
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
    chip = chip_by_name(machine)
    if chip is not None and (compute is None or compute.backend == "Metal GPU"):
        return catalogue_speed(chip, kind)
    return assumed_speed(kind, compute.backend if compute is not None else "CPU")


def chip_by_name(machine: Machine | None) -> Chip | None:
    """The chip of a machine that says what it is; None for one that is not known. Macs do not say
    how many GPU cores they have: their memory tells some apart."""
    if machine is None or machine.chip is None:
        return None
    memory_gb = machine.memory_bytes / GIB
    return find_chip(machine.chip, memory_gb=memory_gb, own=own_chips(config_folder()))


def chip_power(chip: Chip | None) -> NodePower | None:
    """What the machine with this chip draws; None where nobody knows."""
    if chip is None or chip.idle_w is None or chip.max_w is None:
        return None
    decode_w = chip.idle_w + DECODE_POWER * (chip.max_w - chip.idle_w)
    return NodePower(chip.idle_w, decode_w, chip.max_w)


def _best(link: LinkView) -> PathMeasurement | None:
    alive = (path for path in link.paths if path.path.address not in link.dead)
    return next(alive, None)


def _measured_link(path: PathMeasurement, source: Machine | None) -> PlanLink:
    """Half a round trip, and the rate of large messages: a hop's own few kilobytes take little."""
    gbps = path.large_gbps or path.small_gbps
    interfaces = source.interfaces if source is not None else ()
    kinds = (str(one.kind) for one in interfaces if one.name == path.path.interface)
    return PlanLink(path.round_trip_us / 2e6, max(1.0, gbps * GBIT), next(kinds, ""))


def listed_chip(
    name: str,
    gpu_cores: int | None = None,
    memory_gb: float | None = None,
    own: Sequence[Chip] = (),
) -> Chip:
    """A chip that a person names.

    Args:
        own: Those of a rack file; before them come none, after them the user's and the catalogue's.

    Raises:
        RackFileError: Nobody knows it; says what looks like it, and how to describe it.
    """
    known = (*own, *own_chips(config_folder()))
    chip = find_chip(name, gpu_cores, memory_gb, known)
    if chip is None:
        near = near_chips(name, known)
        meant = f"is it {' or '.join(near)}? If not, " if near else ""
        raise RackFileError(
            f"the chip {name!r} is not known: {meant}describe it in a [[chips]] table, with "
            "name, bandwidth_gbs and tflops (configs/README.md)"
        )
    return chip


def _listed_node(node: RackNode, kind: str, own: Sequence[Chip], *, is_head: bool) -> PlanNode:
    if node.memory_gb is None:
        raise RackFileError(f"{node.name} has no memory_gb: a plan needs it, such as 64")
    if node.chip is None:
        raise RackFileError(f'{node.name} has no chip: a plan needs it, such as "M4 Pro"')
    try:
        chip = listed_chip(node.chip, node.gpu_cores, node.memory_gb, own)
    except RackFileError as error:
        raise RackFileError(f"{node.name}: {error}") from error
    return PlanNode(
        node.name,
        int(node.memory_gb * GIB * _model_share(chip, node.memory_gb)),
        catalogue_speed(chip, kind),
        is_head,
        chip_power(chip),
        chip.price_usd(node.memory_gb),
    )


def _model_share(chip: Chip, memory_gb: float) -> float:
    """Of its memory, how much models may take: a GPU's own is theirs."""
    if chip.backend == "CUDA GPU":
        return 1.0
    return SMALL_MAC_SHARE if memory_gb <= SMALL_MAC_GIB else MAC_SHARE


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
