"""The links of a rack as they are drawn: one between two nodes. Pure."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tbcluster.cluster.doctor.rack_map import RackMap, used_path
from tbcluster.cluster.stage_status import StageState
from tbcluster.machine import InterfaceKind, LinkView, RackView
from tbcluster.server.live.view import LiveLink, LiveModel

# A path is as good as the worse of its two ends.
_WORST_FIRST = (
    InterfaceKind.OTHER,
    InterfaceKind.WIFI,
    InterfaceKind.BRIDGE,
    InterfaceKind.ETHERNET,
    InterfaceKind.THUNDERBOLT,
    InterfaceKind.LOOPBACK,
)


def live_links(rack: RackView, models: Sequence[LiveModel]) -> Iterator[LiveLink]:
    """One for each two nodes between which something was ever measured."""
    rack_map = RackMap(rack)
    used = _used(rack_map, models)
    there = {node.node_id for node in rack_map.online()}
    seen: dict[frozenset[str], list[LinkView]] = {}
    for link in rack_map.links():
        if link.paths and link.source != link.target:
            seen.setdefault(frozenset((link.source, link.target)), []).append(link)
    for ends, directions in seen.items():
        best = max(directions, key=lambda link: _large_gbps(link, ends <= there))
        path = used_path(best) if ends <= there else None
        shown = path or best.paths[0]
        kinds = rack_map.kinds(best, shown)
        source, target = directions[0].source, directions[0].target
        names = rack_map.name(source), rack_map.name(target)
        yield LiveLink(
            source=names[0],
            target=names[1],
            kind=next(kind for kind in _WORST_FIRST if kind in kinds).value,
            is_up=path is not None,
            is_used=frozenset(names) in used,
            round_trip_us=shown.round_trip_us,
            gbps=shown.large_gbps,
        )


def _large_gbps(link: LinkView, is_up: bool) -> float:
    path = used_path(link) if is_up else None
    return path.large_gbps if path is not None else 0.0


def _used(rack_map: RackMap, models: Sequence[LiveModel]) -> set[frozenset[str]]:
    """Pairs of names between which hidden states or tokens travel: from the coordinator through the
    stages of each replica and back."""
    head = next((node.name for node in rack_map.rack.nodes if node.is_head), None)
    used = set()
    for model in models:
        replicas: dict[int, list[str]] = {}
        for stage in model.stages:
            if stage.state == StageState.READY:
                replicas.setdefault(stage.replica, []).append(stage.node)
        for nodes in replicas.values():
            way = [head, *nodes, head] if head is not None else nodes
            used |= {frozenset(pair) for pair in pairwise(way)}
    return used
