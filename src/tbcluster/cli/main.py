"""`tbcluster`: the commands, and how their errors reach the user."""

import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from tbcluster.cli import (
    agent,
    chat,
    doctor,
    generate,
    init,
    invite,
    join,
    keys,
    links,
    nodes,
    serve,
    service,
    status,
)
from tbcluster.cli.terminal import harmless, log_to_terminal
from tbcluster.errors import TbclusterError

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
app.command("serve")(serve.serve)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
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
        said = harmless(str(error), keeps="\n")
        typer.secho(f"tbcluster: {said}", fg=typer.colors.RED, err=True)
        sys.exit(1)
