"""`tbcluster trace`: a request's steps through the stages, drawn or exported."""

import json
import urllib.parse
from pathlib import Path
from typing import Annotated, Any

import typer

from tbcluster.cli.endpoint import Endpoint, post_json
from tbcluster.cli.loading import console
from tbcluster.cli.models import DEFAULT_URL, Key, Url
from tbcluster.cli.rack import output
from tbcluster.cli.trace_view import list_picture, trace_picture
from tbcluster.errors import EndpointError, OutputFileError
from tbcluster.tracing.chrome import chrome_trace
from tbcluster.tracing.otlp import otlp_body
from tbcluster.tracing.trace import decode_summaries, decode_trace

OTLP_PATH = "/v1/traces"


def trace(
    request: Annotated[
        str | None,
        typer.Argument(
            help="Its x-request-id, its answer's id, or `last`. Without: the newest.",
            show_default=False,
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    chrome: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a Chrome trace there, which Perfetto opens."),
    ] = None,
    otlp: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send it to an OpenTelemetry collector, such as http://localhost:4318.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where a request's time went: its steps through the stages."""
    server = Endpoint(url, key)
    if request is None:
        if chrome is not None or otlp is not None:
            raise typer.BadParameter("name a request to export, or `last`")
        show_newest(server, as_json=as_json)
        return
    content = server.text(f"/traces/{urllib.parse.quote(request, safe='')}")
    if as_json:
        typer.echo(content)
    found = readable(decode_trace, content)
    if chrome is not None:
        write(chrome, chrome_trace(found))
        console.print(f"Written to {chrome}: open it at https://ui.perfetto.dev", markup=False)
    if otlp is not None:
        target = otlp.rstrip("/").removesuffix(OTLP_PATH) + OTLP_PATH
        post_json(target, otlp_body(found))
        console.print(f"Sent to {target}", markup=False)
    if not as_json and chrome is None and otlp is None:
        terminal = output()
        terminal.print(trace_picture(found, terminal.width))


def show_newest(server: Endpoint, *, as_json: bool) -> None:
    """List them."""
    content = server.text("/traces")
    if as_json:
        typer.echo(content)
        return
    summaries = readable(decode_summaries, content)
    if summaries:
        terminal = output()
        terminal.print(list_picture(summaries, terminal.width))
    else:
        console.print("No request has come yet.")


def readable(decode: Any, content: str) -> Any:
    """What an answer holds.

    Raises:
        EndpointError: It is not of this version.
    """
    try:
        return decode(content)
    except ValueError as error:
        raise EndpointError(
            f"the server's trace cannot be read ({error}): run the same tbcluster version here"
        ) from error


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON to a file.

    Raises:
        OutputFileError: That is not possible.
    """
    try:
        path.write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise OutputFileError(f"{path} cannot be written: {error.strerror}") from error
