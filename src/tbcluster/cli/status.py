"""`tbcluster status`: the rack at a glance."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from tbcluster.cli.rack import (
    ask_for_rack,
    lines,
    memory_cell,
    output,
    path_ends,
    plain,
    state_cell,
    table,
)
from tbcluster.cluster.doctor import amounts
from tbcluster.cluster.doctor.rack_map import RackMap, used_path
from tbcluster.machine import NodeState, RackView


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is served, by which nodes, over which links."""
    rack = ask_for_rack()
    if as_json:
        typer.echo(json.dumps(asdict(rack), indent=2))
        return
    screen = output()
    screen.print(plain(headline(rack)), soft_wrap=True)
    screen.print(plain(served_line(rack)), soft_wrap=True)
    screen.print(node_table(rack))
    if rack.links:
        screen.print()
        screen.print(link_table(RackMap(rack)))


def headline(rack: RackView) -> str:
    """Which rack this is."""
    members = [node for node in rack.nodes if node.state is not NodeState.REVOKED]
    num_online = len(RackMap(rack).online())
    return (
        f"{rack.cluster_name} ({rack.cluster_id}), tbcluster {rack.tbcluster_version}: "
        f"{num_online} of {len(members)} nodes online"
    )


def served_line(rack: RackView) -> str:
    """What is served, and how far it is."""
    if rack.serving is None:
        return "serves nothing: `tbcluster serve MODEL` on the head node starts it"
    return f"serves {rack.serving}: {rack.serving_state or 'its state is not known'}"


def node_table(rack: RackView) -> Table:
    """Who runs what, in which memory."""
    names = [node.name for node in rack.nodes]
    made = table("node", "state", "memory for models", "stages", names=names)
    for node in rack.nodes:
        stages = lines(*node.stages) if node.stages else "-"
        made.add_row(plain(node.name), state_cell(node), memory_cell(node), stages)
    return made


def link_table(rack: RackMap) -> Table:
    """The path that is used between each two nodes."""
    made = table("from", "to", "over", "round trip", "8 MB", right=("round trip", "8 MB"))
    for link in rack.links():
        names = plain(rack.name(link.source)), plain(rack.name(link.target))
        path = used_path(link)
        if path is None:
            made.add_row(*names, "no path", "-", "-", style="red")
        else:
            made.add_row(
                *names,
                plain(path_ends(rack, link, path.path)),
                amounts.round_trip(path.round_trip_us),
                amounts.rate(path.large_gbps),
            )
    return made
