"""`tbcluster models`, `load` and `unload`: which models a running server has in memory."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table
from rich.text import Text

from tbcluster.cli.endpoint import Endpoint
from tbcluster.cli.loading import console, say
from tbcluster.cli.rack import output, plain, table
from tbcluster.cli.terminal import harmless
from tbcluster.errors import EndpointError

# How often a load is looked at.
LOOK_S = 0.3
# Of a reason in a table.
MAX_REASON = 100

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
    with watching(name, url), shown(f"loading {name}") as show:
        for status in followed(server, name):
            if status["value"] == "loaded" and not status.get("failed"):
                break
            if status["value"] in ("loaded", "unloaded"):
                raise EndpointError(status.get("error") or f"{name} was unloaded meanwhile")
            show(status.get("doing") or "waiting")
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
def watching(name: str, url: str) -> Iterator[None]:
    """Ctrl-C ends the block, not the load at the server, which is said."""
    try:
        yield
    except KeyboardInterrupt:
        there = "" if url == DEFAULT_URL else f" --url {url}"
        say(f"The server goes on loading {name}: `tbcluster unload {name}{there}` stops it.")
        raise


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
    """Where a model stands, and why: the first sentence, all of it is in the JSON."""
    words = [status["value"], status.get("doing"), first_sentence(status.get("error") or "")]
    return ": ".join(word for word in words if word)


def first_sentence(text: str) -> str:
    """A line that says the most of it, and is no longer than a line should be."""
    sentence = re.split(r"[.;]\s|\n", text, maxsplit=1)[0]
    return sentence if len(sentence) <= MAX_REASON else f"{sentence[:MAX_REASON].rstrip()}…"
