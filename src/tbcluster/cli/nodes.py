"""`tbcluster nodes`: who belongs to the rack."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tbcluster.cli.loading import console
from tbcluster.cli.rack import (
    ask_for_rack,
    find_node,
    lines,
    memory_cell,
    output,
    plain,
    state_cell,
    table,
)
from tbcluster.cli.state import own_folder
from tbcluster.cluster.doctor import amounts
from tbcluster.cluster.rack.rack import head_of
from tbcluster.cluster.trust import MemberFile
from tbcluster.errors import RackError
from tbcluster.machine import Interface, Machine, NodeView, RackView, ThunderboltPort

app = typer.Typer(help="List, show, rename and revoke the rack's nodes.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="The node's name or id.")]


@app.callback(invoke_without_command=True)
def nodes(context: typer.Context, as_json: AsJson = False) -> None:
    """List the nodes; the other commands have a name."""
    if context.invoked_subcommand is None:
        list_nodes(as_json)


@app.command("list")
def list_nodes(as_json: AsJson = False) -> None:
    """Show all nodes and what they are."""
    rack = ask_for_rack()
    if as_json:
        typer.echo(json.dumps([asdict(node) for node in rack.nodes], indent=2))
        return
    output().print(node_table(rack))
    if len(rack.nodes) == 1:
        console.print("To add a Mac: `tbcluster invite` here, and there what it prints.")


@app.command("show")
def show_node(name: Name, as_json: AsJson = False) -> None:
    """Show everything that is known of a node."""
    node = find_node(ask_for_rack(inspects=True), name)
    if as_json:
        typer.echo(json.dumps(asdict(node), indent=2))
    else:
        output().print(facts_table(node))


@app.command("rename")
def rename_node(
    old: Name, new: Annotated[str, typer.Argument(help="The name that it will have.")]
) -> None:
    """Give a node another name; its id stays."""
    members().rename(old, new)
    console.print(plain(f"{old} is called {new} now."))


@app.command("revoke")
def revoke_node(
    name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Shut a node out: its keys are refused from now on, and its connections are ended."""
    file = members()
    if file.revocable(name).is_revoked:
        console.print(plain(f"{name} was revoked already."))
        return
    if not yes:
        _agree(f"Revoke {name}? To come back it has to join anew.")
    file.revoke(name)
    console.print(
        plain(
            f"{name} is revoked. To wipe its keys, remove its folder there. Models that it ran "
            "stages of are placed on the other nodes."
        ),
        soft_wrap=True,
    )


def _agree(question: str) -> None:
    """Raises: RackError unless the user says yes."""
    try:
        typer.confirm(question, abort=True, err=True)
    except typer.Abort as error:
        raise RackError("nothing was changed: answer y, or give --yes") from error


def members() -> MemberFile:
    """The list of nodes, which the head node keeps.

    Raises:
        RackError: This machine is no head node.
    """
    folder = own_folder()
    head_of(folder)
    return MemberFile(folder)


def node_table(rack: RackView) -> Table:
    """A row for each node, with cells of several lines so that 80 columns hold it."""
    names = [name for node in rack.nodes for name in (node.name, node.node_id)]
    made = table("node", "state, stages", "machine", "memory, disk", "software", names=names)
    for node in rack.nodes:
        machine, compute = node.machine, node.machine.compute if node.machine else None
        memory = memory_cell(node)
        if machine is not None and machine.disk_total_bytes > 0:
            memory.append(f"\n{amounts.disk(machine.disk_free_bytes)} free")
        made.add_row(
            lines(node.name, node.node_id),
            Text("\n").join((state_cell(node), *map(plain, node.stages))),
            lines(machine.chip or machine.architecture, _cores(machine)) if machine else "-",
            memory,
            lines(
                machine.system,
                machine.os_build or "",
                f"tbcluster {machine.tbcluster_version}",
                f"mlx {compute.mlx_version}" if compute else "",
            )
            if machine
            else "-",
        )
    return made


def _cores(machine: Machine) -> str:
    """ "14 cores 10P+4E": performance and efficiency cores."""
    fast, slow = machine.num_performance_cores, machine.num_efficiency_cores
    kinds = f" {fast}P+{slow}E" if fast is not None and slow is not None else ""
    return f"{machine.num_cores} cores{kinds}" if machine.num_cores else ""


def facts_table(node: NodeView) -> Table:
    """Everything that is known of a node, a fact a line."""
    made = table("fact", "value")
    made.show_header = False
    for fact, value in (*_standing(node), *(_facts(node.machine) if node.machine else ())):
        if value:
            made.add_row(fact, plain(value))
    return made


def _standing(node: NodeView) -> list[tuple[str, str]]:
    heard, offset = node.seconds_since_heard, node.clock_offset_s
    return [
        ("name", node.name),
        ("id", node.node_id),
        ("state", node.state.value + (" (head node)" if node.is_head else "")),
        ("drained", "it is given no stages" if node.is_drained else ""),
        ("refused", node.refused_because or ""),
        ("last heard", f"{amounts.duration(heard)} ago" if heard is not None else "never"),
        ("clock", f"{offset:+.2f} s" if offset is not None else ""),
        *(("stage", stage) for stage in node.stages),
    ]


def _facts(machine: Machine) -> list[tuple[str, str]]:
    compute, available = machine.compute, machine.available_bytes
    limit, sleep = machine.wired_limit_mb, machine.sleep_minutes
    restarts, thermal = machine.restarts_after_power_loss, machine.thermal_speed_limit
    return [
        ("host name", machine.hostname),
        ("system", " ".join(filter(None, (machine.system, machine.os_build)))),
        ("machine", ", ".join(filter(None, (machine.chip, machine.model, machine.architecture)))),
        ("cores", _cores(machine)),
        ("memory", amounts.memory(machine.memory_bytes)),
        ("available", amounts.memory(available) if available is not None else ""),
        ("for models", amounts.memory(compute.working_set_bytes) if compute else "not known"),
        (
            "largest buffer",
            amounts.memory(compute.max_buffer_bytes)
            if compute and compute.max_buffer_bytes
            else "",
        ),
        ("wired limit", "" if limit is None else f"{limit} MB" if limit else "the system's own"),
        (
            "disk",
            f"{amounts.disk(machine.disk_free_bytes)} of "
            f"{amounts.disk(machine.disk_total_bytes)} free",
        ),
        ("computes on", f"{compute.backend} ({compute.device})" if compute else "not known"),
        ("tbcluster", machine.tbcluster_version),
        ("mlx", f"{compute.mlx_version}, mlx-lm {compute.mlx_lm_version}" if compute else ""),
        ("python", machine.python_version),
        ("sleeps", "" if sleep is None else f"after {sleep} min" if sleep else "never"),
        ("after power cut", "" if restarts is None else "starts again" if restarts else "off"),
        ("speed limit", "" if thermal is None else f"{thermal} %"),
        ("local network", "blocked by macOS" if machine.is_lan_blocked else ""),
        ("RDMA", machine.rdma.state.value),
        *(("interface", _interface(found)) for found in machine.interfaces),
        *((f"Thunderbolt {port.receptacle}", _port(port)) for port in machine.thunderbolt),
        *(("not found out", error) for error in machine.probe_errors),
    ]


def _interface(interface: Interface) -> str:
    parts = [
        f"{interface.name} {interface.kind.value}",
        "up" if interface.is_up else "down",
        f"mtu {interface.mtu}",
        *(f"{address.ip}/{address.prefix_length}" for address in interface.addresses),
    ]
    if interface.members:
        parts.append(f"joins {' '.join(interface.members)}")
    if interface.service and not interface.is_service_enabled:
        parts.append(f"{interface.service} is off")
    return ", ".join(parts)


def _port(port: ThunderboltPort) -> str:
    is_idle = port.link_gbps is None
    parts = [
        f"Thunderbolt {port.generation}" if port.generation is not None else "",
        port.interface or "",
        "nothing plugged in" if is_idle and not port.devices else "",
        "" if is_idle else f"{port.link_gbps} Gb/s",
        f"to {port.peer_model}" if port.peer_model else "",
        f"through {', '.join(port.via)}" if port.via else "",
        f"with {', '.join(port.devices)}" if port.devices else "",
    ]
    return ", ".join(filter(None, parts))
