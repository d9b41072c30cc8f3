"""`tbcluster doctor`: what is wrong with the rack, and the commands that mend it."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tbcluster.cli.loading import console
from tbcluster.cli.rack import ask_for_rack, find_node, output, plain, table
from tbcluster.cli.state import own_folder
from tbcluster.cluster.agent.compute import probe_compute
from tbcluster.cluster.agent.inspection import model_cache
from tbcluster.cluster.doctor.check import check_rack
from tbcluster.cluster.doctor.finding import Finding, Status, can_serve
from tbcluster.cluster.doctor.rack_map import RackMap
from tbcluster.cluster.rack.rack import head_of
from tbcluster.cluster.trust import TrustFolder
from tbcluster.errors import RackError
from tbcluster.hardware.machine import this_machine
from tbcluster.machine import NodeState, NodeView, RackView

RACK = "(rack)"
MARKS = {Status.OK: ("ok", "green"), Status.WARNING: ("!", "yellow"), Status.FAILED: ("X", "red")}


def doctor(
    node: Annotated[
        str | None,
        typer.Option(help="Say only what concerns this node, by name or id.", show_default=False),
    ] = None,
    measure: Annotated[bool, typer.Option(help="Measure all links anew.")] = True,
    all_checks: Annotated[
        bool, typer.Option("--all", help="Show the checks that found nothing wrong, too.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all checks as a list in JSON.")
    ] = False,
) -> None:
    """Check the nodes, their links and their settings, and say how to mend what is wrong.

    Changes nothing. The exit code is 0 if the rack can serve, with warnings or without, else 1.
    """
    rack = rack_to_check(measure)
    findings = check_rack(rack)
    serves = can_serve(findings)
    ending = of_this_machine(findings) if RackMap(rack).is_alone else of_the_rack(serves=serves)
    if node is not None:
        name = find_node(rack, node).name
        findings = [finding for finding in findings if finding.node == name]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        show(findings, output(), all_checks, ending)
    raise typer.Exit(0 if serves else 1)


def rack_to_check(measures: bool) -> RackView:
    """The rack on its head node, elsewhere this machine alone."""
    folder = own_folder()
    try:
        head_of(folder)
    except RackError as error:
        console.print(plain(f"{error}. Checking this machine alone."), soft_wrap=True)
        return this_machine_alone(folder)
    return ask_for_rack(inspects=True, measures=measures)


def this_machine_alone(folder: TrustFolder) -> RackView:
    """A rack of one node, without a coordinator."""
    machine = this_machine(probe_compute(), model_cache())
    membership = folder.membership()
    name = membership.node_name if membership is not None else machine.hostname
    # No id: keys are made when a machine joins, not when it is looked at.
    me = NodeView("", name, NodeState.ONLINE, machine=machine)
    return RackView("", "", version("tbcluster"), nodes=(me,))


def show(findings: list[Finding], screen: Console, all_checks: bool, ending: str) -> None:
    """What needs a look as a table, then the commands, then how it stands."""
    shown = [f for f in findings if all_checks or f.fix or f.status is not Status.OK]
    if shown:
        screen.print(finding_table(shown))
    for (node, fix), group in groupby(_fixes(shown), key=lambda pair: pair[0]):
        screen.print()
        screen.print(plain(f"{_where(node)} ({', '.join(name for _, name in group)}):"))
        screen.print(Text.assemble("  ", plain(fix)), soft_wrap=True)
    if shown:
        screen.print()
    screen.print(verdict(findings, ending), soft_wrap=True)


def _fixes(findings: Iterable[Finding]) -> list[tuple[tuple[str | None, str], str]]:
    """((node, fix), check), equal fixes of a node beside one another."""
    order: dict[tuple[str | None, str], list[str]] = {}
    for finding in findings:
        if finding.fix is not None:
            order.setdefault((finding.node, finding.fix), []).append(finding.name)
    return [(key, name) for key, names in order.items() for name in names]


def _where(node: str | None) -> str:
    return "on the head node" if node is None else f"on {node}"


def finding_table(findings: list[Finding]) -> Table:
    """A row for each finding."""
    made = table("", "node", "check", "found", names=[f.node or RACK for f in findings])
    for finding in findings:
        mark, style = MARKS[finding.status]
        made.add_row(
            Text(mark, style), plain(finding.node or RACK), finding.name, plain(finding.detail)
        )
    return made


def of_the_rack(*, serves: bool) -> str:
    """Whether the rack can serve, whichever findings are shown."""
    return "nothing keeps the rack from serving" if serves else "the rack cannot serve"


def of_this_machine(findings: list[Finding]) -> str:
    """What is wrong with a machine that is looked at by itself."""
    wrong = dict.fromkeys(f.name for f in findings if f.status is not Status.OK)
    return f"wrong here: {', '.join(wrong)}" if wrong else "nothing is wrong with this machine"


def verdict(findings: list[Finding], ending: str) -> str:
    """How many of which are shown, and how it stands."""
    counts = {status: sum(f.status is status for f in findings) for status in Status}
    return (
        f"ok: {counts[Status.OK]}, warnings: {counts[Status.WARNING]}, "
        f"failures: {counts[Status.FAILED]}; {ending}"
    )
