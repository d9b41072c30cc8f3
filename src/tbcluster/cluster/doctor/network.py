"""The paths between nodes: there, fast, and over the cables that were laid for them."""

from collections.abc import Iterator

from tbcluster.cluster.doctor import amounts
from tbcluster.cluster.doctor.finding import Finding, failed, ok, warning
from tbcluster.cluster.doctor.rack_map import KIND_NAMES, RackMap, used_path
from tbcluster.machine import InterfaceKind, LinkView, PathMeasurement

MEASURE = "tbcluster links --measure"
# What even an encrypted connection of a busy machine reaches: an Ethernet below is one of
# 100 Mb/s, or a bad cable.
MIN_GBPS = {InterfaceKind.THUNDERBOLT: 1.0, InterfaceKind.ETHERNET: 0.3}
MAX_ROUND_TRIP_US = 5000.0
# By the lesser of its two ends a path is called.
WORST_FIRST = (
    InterfaceKind.WIFI,
    InterfaceKind.OTHER,
    InterfaceKind.BRIDGE,
    InterfaceKind.ETHERNET,
    InterfaceKind.LOOPBACK,
    InterfaceKind.THUNDERBOLT,
)


def check_measured(rack: RackMap) -> Iterator[Finding]:
    """Every node was measured from every other one."""
    online = {node.node_id for node in rack.online()}
    num_pairs = len(online) * (len(online) - 1)
    num_measured = len({(link.source, link.target) for link in rack.links_online()})
    if num_measured < num_pairs:
        yield ok(
            "measured",
            None,
            f"{num_pairs - num_measured} of {num_pairs} links were not measured",
            MEASURE,
        )


def check_paths(rack: RackMap) -> Iterator[Finding]:
    """Each node reaches each other one, and not by radio."""
    cut_off = _cut_off(rack.links_online())
    for link in rack.links_online():
        path = used_path(link)
        if path is None:
            yield _no_path(rack, link, cut_off)
        else:
            yield _path_in_use(rack, link, path)


def _cut_off(links: tuple[LinkView, ...]) -> frozenset[str]:
    """Nodes that reach no other one, or that no other one reaches."""
    out_of = {link.source for link in links} - {link.source for link in links if used_path(link)}
    into = {link.target for link in links} - {link.target for link in links if used_path(link)}
    return frozenset(out_of | into)


def _no_path(rack: RackMap, link: LinkView, cut_off: frozenset[str]) -> Finding:
    source, target = rack.name(link.source), rack.name(link.target)
    answers = "none of its addresses answers" if not link.paths else "no path answers any more"
    # Between two others a pipeline may still find its way in another order.
    say = failed if {link.source, link.target} & cut_off else warning
    return say(
        "path",
        source,
        f"no way to {target}: {answers}",
        f"connect {source} and {target} by a cable or one network, let tbcluster through a "
        f"firewall on {target}, then: {MEASURE}",
    )


def _path_in_use(rack: RackMap, link: LinkView, path: PathMeasurement) -> Finding:
    source, target = rack.name(link.source), rack.name(link.target)
    kind = _slowest(rack, link, path)
    detail = (
        f"to {target} over {KIND_NAMES[kind]} ({path.path.interface}): "
        f"{amounts.round_trip(path.round_trip_us)}, {amounts.rate(path.large_gbps)}"
    )
    if kind is InterfaceKind.WIFI:
        fix = f"connect {source} and {target} with a Thunderbolt or Ethernet cable"
        return warning("path", source, f"{detail}: radio is slow and uneven", fix)
    is_slow = path.large_gbps < MIN_GBPS.get(kind, 0.0)
    if is_slow or (kind in MIN_GBPS and path.round_trip_us > MAX_ROUND_TRIP_US):
        what = "rate" if is_slow else "round trip"
        return warning(
            "path",
            source,
            f"{detail}: a poor {what} for {KIND_NAMES[kind]}",
            f"try another cable and an idle network, then: {MEASURE}",
        )
    return ok("path", source, detail)


def _slowest(rack: RackMap, link: LinkView, path: PathMeasurement) -> InterfaceKind:
    """What a path is called: by the lesser of its two ends."""
    kinds = rack.kinds(link, path)
    return next(kind for kind in WORST_FIRST if kind in kinds)


def check_dead_paths(rack: RackMap) -> Iterator[Finding]:
    """Every path that was measured still answers."""
    for link in rack.links_online():
        dead = [found.path for found in link.paths if found.path.address in link.dead]
        if dead and used_path(link) is not None:
            where = ", ".join(f"{path.address} ({path.interface})" for path in dead)
            target = rack.name(link.target)
            yield warning(
                "dead-path",
                rack.name(link.source),
                f"to {target}: {where} does not answer any more; another path is used",
                f"look at the cable of {dead[0].interface}, then: {MEASURE}",
            )
