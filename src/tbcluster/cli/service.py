"""`tbcluster service`: an agent or a coordinator that starts with the machine."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tbcluster.cli import agent, serve
from tbcluster.cli.loading import console
from tbcluster.cluster import service
from tbcluster.cluster.service import ServiceKind, ServiceState
from tbcluster.cluster.trust import TrustFolder
from tbcluster.errors import ServiceError

app = typer.Typer(help="Have the system start tbcluster with the machine.", no_args_is_help=True)

COMMANDS: dict[ServiceKind, Callable[..., None]] = {
    ServiceKind.AGENT: agent.agent,
    ServiceKind.SERVE: serve.serve,
}
Kind = Annotated[ServiceKind, typer.Argument(help="agent, or serve on the head node.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Print = Annotated[
    bool, typer.Option("--print", help="Only show what would be done; needs no root.")
]


@app.command(context_settings={"ignore_unknown_options": True})
def install(
    kind: Kind = ServiceKind.AGENT,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARGS...",
            help="What follows `tbcluster agent` or `tbcluster serve` there.",
            show_default=False,
        ),
    ] = None,
    prints: Print = False,
    yes: Yes = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", hidden=True, help="Who calls it shows and says all that.")
    ] = False,
) -> None:
    """Install and start a service: a LaunchDaemon on macOS, a systemd unit on Linux.

    The file and the commands are shown first. With sudo it runs as whoever called sudo.
    """
    options = checked_options(kind, arguments or [])
    services = service.this_machine()
    wanted = services.service(
        kind, arguments or (), **({"drain_s": options["drain"]} if "drain" in options else {})
    )
    if not quiet:
        typer.echo(services.shown_install(wanted))
        if kind is ServiceKind.AGENT:
            _advise(TrustFolder(services.caller.state_folder))
    if prints:
        return
    services.require_root(wanted)
    agree("Install it?", yes=yes)
    state = services.install(wanted)
    if quiet:
        return
    report(state)


def _advise(folder: TrustFolder) -> None:
    """Say where an agent's service has nothing to do."""
    if folder.head() is not None:
        console.print(
            "The head node's agent comes with `serve`: `tbcluster service install serve MODEL`.",
            soft_wrap=True,
            markup=False,
        )
    elif folder.membership() is None:
        console.print(
            "This machine belongs to no cluster yet: `tbcluster join TOKEN` first, as yourself. A "
            "service that is there already waits for that.",
            soft_wrap=True,
            markup=False,
        )


@app.command()
def uninstall(kind: Kind = ServiceKind.AGENT, prints: Print = False, yes: Yes = False) -> None:
    """Stop a service and remove its file."""
    services = service.this_machine()
    typer.echo(f"As root:\n\n{services.shown_uninstall(kind)}")
    if prints:
        return
    services.require_root(kind)
    agree("Remove it?", yes=yes)
    state = services.uninstall(kind)
    console.print(f"The {state.kind} service is removed.", markup=False)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show which services are installed, and whether they run."""
    services = service.this_machine()
    states = [services.state(kind) for kind in ServiceKind]
    if as_json:
        typer.echo(json.dumps([asdict(state) for state in states], indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("service", "state", "log"):
        table.add_column(column, overflow="fold")
    for state in states:
        table.add_row(state.kind, in_words(state), state.log if state.is_installed else "-")
    Console(highlight=False).print(table)


def checked_options(kind: ServiceKind, arguments: list[str]) -> dict[str, Any]:
    """The options of the command as the service will have them.

    Raises:
        UsageError: The command would refuse these arguments, each time that it is started.
    """
    command = typer.Typer(add_completion=False)
    command.command()(COMMANDS[kind])
    parsed = typer.main.get_command(command).make_context(f"tbcluster {kind}", list(arguments))
    return parsed.params


def agree(question: str, *, yes: bool) -> None:
    """Raises: ServiceError unless the user says yes."""
    if yes:
        return
    try:
        typer.confirm(question, abort=True, err=True)
    except typer.Abort as error:
        raise ServiceError("nothing was changed; --yes answers the question") from error


def report(state: ServiceState) -> None:
    """Say how the installed service does."""
    console.print(
        f"The {state.kind} service is installed: {in_words(state)}. See `{state.log}`.",
        soft_wrap=True,
        markup=False,
    )


def in_words(state: ServiceState) -> str:
    """`runs (pid 71)`, `not running (exit 1)` or `not installed`."""
    if state.is_running:
        return f"runs (pid {state.pid})"
    if not state.is_installed:
        return "not installed"
    return "not running" if state.last_exit is None else f"not running (exit {state.last_exit})"
