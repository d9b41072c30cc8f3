"""`tbcluster keys`: who may use the server."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tbcluster.cli.loading import console
from tbcluster.cli.options import Keys, key_file_path
from tbcluster.server.keys import MAX_PER_MINUTE, ApiKey, KeyFile

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Whose key it is, such as alice or ci.")]


@app.command()
def add(
    name: Name,
    requests_per_minute: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_PER_MINUTE, help="Most requests a minute.", show_default=False),
    ] = None,
    tokens_per_minute: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_PER_MINUTE,
            help="Most tokens a minute, prompts and answers together.",
            show_default=False,
        ),
    ] = None,
    keys: Keys = None,
) -> None:
    """Make a key and print it, this once."""
    file = KeyFile(key_file_path(keys))
    secret = file.add(
        name, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute
    )
    typer.echo(secret)
    console.print(
        f"The key of {name}. It is kept as a hash in {file.path} and cannot be shown again.",
        soft_wrap=True,
        markup=False,
    )


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    keys: Keys = None,
) -> None:
    """Show whose keys are valid, and their limits."""
    known = KeyFile(key_file_path(keys)).load()
    if as_json:
        shown = [{k: v for k, v in asdict(key).items() if k != "sha256"} for key in known]
        typer.echo(json.dumps(shown, indent=2))
    elif known:
        Console(highlight=False).print(_table(known))
    else:
        console.print("There are no keys: make one with `tbcluster keys add NAME`.", markup=False)


@app.command()
def revoke(name: Name, keys: Keys = None) -> None:
    """Make a key invalid, for running servers too."""
    KeyFile(key_file_path(keys)).revoke(name)
    console.print(f"The key of {name} is revoked.", markup=False)


def _table(known: tuple[ApiKey, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name")
    table.add_column("created")
    table.add_column("requests/min", justify="right")
    table.add_column("tokens/min", justify="right")
    for key in known:
        limits = (key.requests_per_minute, key.tokens_per_minute)
        table.add_row(key.name, key.created, *("-" if n is None else f"{n:,}" for n in limits))
    return table
