"""`tbcluster models`, `load` and `unload`: which models a running server has in memory."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table
from rich.text import Text

from tbcluster.cli.endpoint import Endpoint
from tbcluster.cli.loading import console
from tbcluster.cli.rack import output, plain, table
from tbcluster.cli.terminal import harmless
from tbcluster.errors import EndpointError

# How often a load is looked at.
LOOK_S = 0.3

Url = Annotated[
    str,
    typer.Option(envvar="TBCLUSTER_URL", metavar="URL", help="Where the server is."),
]
Key = Annotated[
    str | None,
    typer.Option(
        envvar="TBCLUSTER_API_KEY",
        metavar="KEY",
        help="An API key, where the server asks for one.",
        show_default=False,
    ),
]
Name = Annotated[str, typer.Argument(help="The model's name, as `tbcluster models` lists it.")]
DEFAULT_URL = "http://127.0.0.1:8080"


def models(
    url: Url = DEFAULT_URL,
    key: Key = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models of a running server: those that are loaded, and those that can be."""
    listed = Endpoint(url, key).get("/models")["data"]
    if as_json:
        typer.echo(json.dumps(listed, indent=2))
    elif listed:
        output().print(model_table(listed))
    else:
        console.print("The server has no models.")


def load(
    name: Name,
    url: Url = DEFAULT_URL,
    key: Key = None,
    switch: Annotated[
        bool, typer.Option("--switch", help="Unload idle models that are in its way.")
    ] = False,
) -> None:
    """Load a model of a running server, and wait until it can answer."""
    server = Endpoint(url, key)
    server.post("/models/load", {"model": name, "switch": switch})
    with shown(f"loading {name}") as say:
        for status in followed(server, name):
            if status["value"] == "loaded" and not status.get("failed"):
                break
            if status["value"] in ("loaded", "unloaded"):
                raise EndpointError(status.get("error") or f"{name} was unloaded meanwhile")
            say(status.get("doing") or "waiting")
    console.print(Text(f"{harmless(name)} is loaded."))


def unload(
    name: Name,
    url: Url = DEFAULT_URL,
    key: Key = None,
    force: Annotated[
        bool, typer.Option("--force", help="End its requests instead of letting them finish.")
    ] = False,
) -> None:
    """Unload a model of a running server, once its requests have finished."""
    server = Endpoint(url, key)
    server.post("/models/unload", {"model": name, "force": force})
    with shown(f"unloading {name}"):
        for status in followed(server, name):
            if status["value"] != "unloading":
                break  # "loading" if someone wants it again already
    console.print(Text(f"{harmless(name)} is unloaded."))


def followed(server: Endpoint, name: str) -> Iterator[dict[str, Any]]:
    """The model's status, again and again."""
    while True:
        yield server.get(f"/v1/models/{quote(name)}")["status"]
        time.sleep(LOOK_S)


@contextmanager
def shown(what: str) -> Iterator[Callable[[str], None]]:
    """A line that says what is done while the block runs, on a terminal."""
    with console.status(Text(harmless(what))) as line:
        yield lambda doing: line.update(Text(harmless(f"{what}: {doing}")))


def model_table(listed: list[dict[str, Any]]) -> Table:
    """Each model and where it stands."""
    made = table("model", "state", "context", names=[model["id"] for model in listed])
    for model in listed:
        context = model.get("context_length")
        tokens = "-" if context is None else f"{context:,}"
        made.add_row(plain(model["id"]), plain(state_words(model["status"])), tokens)
    return made


def state_words(status: dict[str, Any]) -> str:
    """Where a model stands, and why."""
    words = [status["value"], status.get("doing"), status.get("error")]
    return ": ".join(word for word in words if word)
