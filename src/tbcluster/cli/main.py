"""`tbcluster`: the commands, and how their errors reach the user."""

import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from tbcluster.cli import (
    agent,
    bench,
    capacity,
    chat,
    doctor,
    drain,
    fleet,
    generate,
    init,
    invite,
    join,
    keys,
    links,
    models,
    nodes,
    plan,
    pull,
    serve,
    service,
    simulate,
    status,
    top,
    trace,
)
from tbcluster.cli.terminal import harmless, log_to_terminal
from tbcluster.errors import DoesNotFitError, TbclusterError

app = typer.Typer(
    name="tbcluster",
    help="Run models that no single Mac can hold, on a rack of Macs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("init")(init.init)
app.command("invite")(invite.invite)
app.command("join")(join.join)
app.command("agent")(agent.agent)
app.command("plan")(plan.plan)
app.command("simulate")(simulate.simulate)
app.command("capacity")(capacity.capacity)
app.command("fleet")(fleet.fleet)
app.command("pull")(pull.pull)
app.command("serve")(serve.serve)
app.command("models")(models.models)
app.command("load")(models.load)
app.command("unload")(models.unload)
app.command("status")(status.status)
app.command("top")(top.top)
app.command("trace")(trace.trace)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.command("drain")(drain.drain)
app.command("undrain")(drain.undrain)
app.command("links")(links.links)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.add_typer(nodes.app, name="nodes")
app.add_typer(service.app, name="service")
app.add_typer(keys.app, name="keys")


def print_version(wanted: bool) -> None:
    """Answer --version before a command is looked for."""
    if wanted:
        typer.echo(f"tbcluster {version('tbcluster')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of tbcluster itself."""


def _told(error: TbclusterError) -> str:
    """An error as a person reads it: what would help is a list."""
    if isinstance(error, DoesNotFitError) and error.remedies:
        return "\n  ".join((f"{error.message}. What would help:", *error.remedies))
    return str(error)


def run() -> None:
    """Run the command line: an error is a sentence on standard error, not a traceback."""
    log_to_terminal("tbcluster: %(message)s")
    # It warns of long prompts, which are refused in words of our own.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # It warns, at length, of each network that goes away.
    logging.getLogger("zeroconf").setLevel(logging.ERROR)
    try:
        app()
    except TbclusterError as error:
        said = harmless(_told(error), keeps="\n")
        typer.secho(f"tbcluster: {said}", fg=typer.colors.RED, err=True)
        sys.exit(1)
