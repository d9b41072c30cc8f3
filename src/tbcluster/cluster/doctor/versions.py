"""All nodes run the same software."""

import re
from collections import Counter
from collections.abc import Iterator

from tbcluster.cluster.doctor.finding import Finding, ok, warning
from tbcluster.cluster.doctor.rack_map import RackMap
from tbcluster.machine import NodeView

UPDATE = "sudo softwareupdate --install --all --restart (the Mac restarts)"
# "25D125": the year's release, a letter for each update of it, and a count.
BUILD = re.compile(r"(\d{1,9})([A-Z])(\d{1,9})(.*)")


def check_tbcluster(rack: RackMap) -> Iterator[Finding]:
    """Versions that speak the same protocol work together, which is meant for as long as it takes
    to upgrade one node after another; `check_states` tells of those that are refused."""
    ours = rack.rack.tbcluster_version
    others = [(node, m) for node, m in rack.machines() if m.tbcluster_version != ours]
    for node, machine in others:
        yield warning(
            "tbcluster-version",
            node.name,
            f"it runs tbcluster {machine.tbcluster_version}, the coordinator {ours}",
            f"install tbcluster {ours} on it, then start its agent again: tbcluster agent",
        )
    if rack.machines() and not others:
        yield ok("tbcluster-version", None, f"all nodes run tbcluster {ours}")


def check_mlx(rack: RackMap) -> Iterator[Finding]:
    """Other versions of MLX compute with other rounding."""
    yield from _same_version(
        "mlx", [(node, m.compute.mlx_version) for node, m in rack.machines() if m.compute]
    )


def check_mlx_lm(rack: RackMap) -> Iterator[Finding]:
    """Another version of mlx-lm may have another code for the same architecture."""
    yield from _same_version(
        "mlx-lm", [(node, m.compute.mlx_lm_version) for node, m in rack.machines() if m.compute]
    )


def _same_version(package: str, versions: list[tuple[NodeView, str]]) -> Iterator[Finding]:
    if not versions:
        return
    check = f"{package}-version"
    node, wanted = _reference(versions)
    others = [(other, version) for other, version in versions if version != wanted]
    for other, version in others:
        yield warning(
            check,
            other.name,
            f"it runs {package} {version}, {node.name} {wanted}: their answers may differ",
            f"python -m pip install {package}=={wanted} (with the Python that runs tbcluster)",
        )
    if not others:
        yield ok(check, None, f"all nodes run {package} {wanted}")


def _reference(versions: list[tuple[NodeView, str]]) -> tuple[NodeView, str]:
    """The head node's version; without it, the one that most nodes run."""
    usual = Counter(version for _, version in versions).most_common(1)[0][0]
    heads = [pair for pair in versions if pair[0].is_head]
    return (heads or [pair for pair in versions if pair[1] == usual])[0]


def check_os_builds(rack: RackMap) -> Iterator[Finding]:
    """Macs of one build have the same Metal and Thunderbolt drivers."""
    builds = [(node, m, m.os_build) for node, m in rack.machines() if m.os_build]
    if not builds:
        return
    newest_node, newest, build = max(builds, key=lambda entry: _build_order(entry[2]))
    others = [(node, machine) for node, machine, other in builds if other != build]
    for node, machine in others:
        yield warning(
            "os-build",
            node.name,
            f"{machine.system} ({machine.os_build}), while {newest_node.name} runs "
            f"{newest.system} ({build}): drivers differ",
            UPDATE,
        )
    if not others:
        yield ok("os-build", None, f"all Macs run {newest.system} ({build})")


def _build_order(build: str) -> tuple[int, str, int, str]:
    found = BUILD.fullmatch(build)
    return (int(found[1]), found[2], int(found[3]), found[4]) if found else (0, "", 0, build)
