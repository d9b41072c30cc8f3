"""`tbcluster links`: the ways between nodes, and which is used."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from tbcluster.cli.loading import console
from tbcluster.cli.rack import ask_for_rack, lines, output, path_ends, plain, table
from tbcluster.cluster.doctor import amounts
from tbcluster.cluster.doctor.rack_map import RackMap, used_path
from tbcluster.machine import LinkView, PathMeasurement


def links(
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure anew; takes a few seconds for each link.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every measured path between two nodes, and which one carries hidden states.

    Of each: its round trip, and its rates with messages of 8 KB and 8 MB.
    """
    rack = RackMap(ask_for_rack(measures=measure))
    if as_json:
        typer.echo(json.dumps([link_facts(rack, link) for link in rack.links()], indent=2))
    elif rack.links():
        output().print(link_table(rack))
    elif len(rack.online()) < 2:
        console.print("There are no links: fewer than two nodes are online.")
    else:
        console.print("No link was measured yet: `tbcluster links --measure` does so now.")


def link_facts(rack: RackMap, link: LinkView) -> dict[str, Any]:
    """A link as programs read it: names beside ids, and each path with what is to be said of it."""
    used = used_path(link)
    return {
        "source": rack.name(link.source),
        "source_id": link.source,
        "target": rack.name(link.target),
        "target_id": link.target,
        "paths": [
            {
                **asdict(found.path),
                "kind": rack.kind(link.source, found.path.interface).value,
                "remote_kind": rack.kind(link.target, found.path.remote_interface).value,
                "round_trip_us": found.round_trip_us,
                "small_gbps": found.small_gbps,
                "large_gbps": found.large_gbps,
                "measured_at": found.measured_at,
                "is_used": found is used,
                "is_dead": found.path.address in link.dead,
            }
            for found in link.paths
        ],
    }


def link_table(rack: RackMap) -> Table:
    """A group of rows for each link, the path that is used first among them."""
    made = table(
        "from, to", "path", "round trip", "8 KB", "8 MB", "", right=("round trip", "8 KB", "8 MB")
    )
    for link in rack.links():
        pair = lines(rack.name(link.source), f"-> {rack.name(link.target)}")
        if not link.paths:
            made.add_row(pair, "no address answers", "-", "-", "-", "no path", style="red")
        used = used_path(link)
        for found in link.paths:
            is_first = found is link.paths[0]
            made.add_row(pair if is_first else "", *_cells(rack, link, found, used))
        made.add_section()
    return made


def _cells(
    rack: RackMap, link: LinkView, found: PathMeasurement, used: PathMeasurement | None
) -> tuple[Any, ...]:
    path, is_dead = found.path, found.path.address in link.dead
    mark = plain("dead" if is_dead else "used" if found is used else "")
    mark.stylize("red" if is_dead else "green")
    return (
        lines(path_ends(rack, link, path), path.address),
        amounts.round_trip(found.round_trip_us),
        amounts.rate(found.small_gbps),
        amounts.rate(found.large_gbps),
        mark,
    )
