"""A site cut into pods: groups of nodes with good links, each planned as a rack of its own. Pure.

A site of up to 16 nodes is one pod. Of a larger one, nodes with cables between them come first,
then all that are left, equal ones together: as few of them as hold a copy are a group, and groups
are put together to pods of up to 16 nodes, in which the planner decides how many copies are best.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tbcluster.planner.network_links import NetworkLinks
from tbcluster.planner.nodes import PlanLink, PlanNode, PlanRack
from tbcluster.planner.pod_plans import PodPlans, room

MAX_POD_NODES = 16
# A model that needs more nodes than that for one copy gets it there: one pipeline, no longer.
MAX_PIPELINE_NODES = 64
# A message of a decode step: hidden states of two sequences, 8192 wide, in 16 bits.
MESSAGE_BYTES = 32 * 1024
# A link this much faster than the network is a cable.
CABLE_SHARE = 0.9

Neighbours = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Cut:
    """Pods of a site, and nodes that are in none: together they hold no copy."""

    pods: tuple[PlanRack, ...]
    spare: tuple[PlanNode, ...]


def cut_into_pods(rack: PlanRack, plans: PodPlans) -> Cut:
    """The pods of a site."""
    if len(rack.nodes) <= MAX_POD_NODES:
        return Cut((rack,), ())
    by_name = {node.name: node for node in rack.nodes}
    groups: list[list[PlanNode]] = []
    loose: list[PlanNode] = []
    for names in _cabled(rack):
        whole, rest = _groups([by_name[name] for name in names], rack, plans)
        groups += whole if len(names) > 1 else []
        loose += rest if len(names) > 1 else [by_name[name] for name in names]
    loose.sort(key=lambda node: (plans.kind(node), not node.is_head))
    more, spare = _groups(loose, rack, plans)
    pods = [_part(rack, nodes) for nodes in (*_merged(groups), *_merged(more))]
    return Cut(tuple(pods), tuple(spare))


def _groups(
    nodes: Sequence[PlanNode], rack: PlanRack, plans: PodPlans
) -> tuple[list[list[PlanNode]], list[PlanNode]]:
    """Neighbours that hold a copy together, as few as do; and those left at the end."""
    groups: list[list[PlanNode]] = []
    group: list[PlanNode] = []
    passed: list[PlanNode] = []
    held = 0
    for node in nodes:
        group.append(node)
        held += room([node])
        if held >= plans.copy_bytes and plans.fits(_part(rack, group)):
            groups.append(group)
            group, held = [], 0
        elif len(group) == MAX_PIPELINE_NODES:
            # The first one stands in the way of those behind it: small memory, or no links.
            passed.append(group.pop(0))
            held -= room([passed[-1]])
    return groups, passed + group


def _merged(groups: Sequence[list[PlanNode]]) -> list[list[PlanNode]]:
    merged: list[list[PlanNode]] = []
    for group in groups:
        if merged and len(merged[-1]) + len(group) <= MAX_POD_NODES:
            merged[-1] = merged[-1] + group
        else:
            merged.append(group)
    return merged


def _part(rack: PlanRack, nodes: Sequence[PlanNode]) -> PlanRack:
    """Some of its nodes; the site's head leads its own pod, the first node any other one."""
    has_head = any(node.is_head for node in nodes)
    led = tuple(
        node if has_head or at else replace(node, is_head=True) for at, node in enumerate(nodes)
    )
    names = [node.name for node in nodes]
    if isinstance(rack.links, NetworkLinks):
        return PlanRack(
            led,
            rack.links.among(names)
            if rack.links.cables
            else NetworkLinks(names, rack.links.network),
        )
    kept = {
        (one, other): link
        for one in names
        for other in names
        if one != other and (link := rack.links.get((one, other))) is not None
    }
    return PlanRack(led, kept)


def _cabled(rack: PlanRack) -> list[list[str]]:
    """Names of nodes that cables connect, along the cables; alone where there is none."""
    neighbours = _neighbours(rack)
    seen: set[str] = set()
    found = []
    # From an end, where there is one, so that a line is followed from there.
    for node in sorted(rack.nodes, key=lambda node: len(neighbours.get(node.name, ()))):
        if node.name not in seen:
            found.append(_walk(node.name, neighbours, seen))
    return found


def _walk(start: str, neighbours: Neighbours, seen: set[str]) -> list[str]:
    """Depth first: a ring is followed around."""
    order, stack = [], [start]
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        order.append(name)
        stack += [other for other in reversed(neighbours.get(name, ())) if other not in seen]
    return order


def _neighbours(rack: PlanRack) -> Neighbours:
    found: dict[str, list[str]] = defaultdict(list)
    for source, target in _cables(rack):
        found[source].append(target)
    return found


def _cables(rack: PlanRack) -> list[tuple[str, str]]:
    if isinstance(rack.links, NetworkLinks):
        return list(rack.links.cables)
    times = {pair: _message_s(link) for pair, link in rack.links.items()}
    slow = max(times.values(), default=0.0) * CABLE_SHARE
    return [pair for pair, seconds in times.items() if seconds < slow]


def _message_s(link: PlanLink) -> float:
    return link.latency_s + MESSAGE_BYTES / link.bytes_per_s
