"""`tbcluster trace`: made-up traces as pictures, and real requests of a real server."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tbcluster.cli.main import app
from tbcluster.cli.trace_view import bar, list_picture, trace_picture
from tbcluster.errors import EndpointError, OutputFileError
from tbcluster.tracing.trace import RequestTrace
from tbcluster.tracing.waterfall import Piece
from tests.doubles.server import ServeProcess
from tests.tracing.traces import a_step, a_trace

BODY = {"model": "tbcluster-demo", "prompt": "Zanzibar is", "max_tokens": 8, "ignore_eos": True}


def shown(trace: RequestTrace, width: int = 120) -> str:
    """What a terminal so wide shows."""
    with open(os.devnull, "w") as nowhere:
        console = Console(width=width, record=True, file=nowhere)
        console.print(trace_picture(trace, width))
        return console.export_text()


def test_a_waterfall_says_what_a_person_asks() -> None:
    text = shown(a_trace())
    assert "129 prompt tokens, 30 generated" in text
    assert "waited 3.0 ms, prefill 50.0 ms" in text
    assert "mac-2" in text
    assert "more steps" in text
    assert "computes longest" in text
    assert "stage 1 ±0.20 ms" in text


@pytest.mark.parametrize("width", [70, 100, 200])
def test_it_fits_the_terminal(width: int) -> None:
    assert max(map(len, shown(a_trace(), width).splitlines())) <= width


def test_what_went_wrong_is_shown() -> None:
    failed = a_step(7, "decode", 60_000, [(1, 0, 5)], error="a stage\x1b[2J broke")
    text = shown(a_trace(steps=(failed,), started_us=(4000, 70_000), num_lost_steps=9))
    assert "failed: a stage" in text
    assert "\x1b" not in text
    assert "started over at 0.070 s" in text
    assert "9 older steps are forgotten" in " ".join(text.split())
    waiting = shown(a_trace(steps=(), started_us=(), first_token_us=None, outcome="running"))
    assert "has not started yet" in waiting


def test_several_choices_have_a_waterfall_each() -> None:
    text = shown(a_trace(num_sequences=2))
    assert "choice 0: length" in text
    assert "choice 1: length" in text


def test_bars_are_to_scale() -> None:
    pieces = (
        Piece("wire", 0, 0, 100),
        Piece("compute", 0, 100, 500),
        Piece("queue", 1, 500, 600),
        Piece("compute", 1, 600, 1000),
    )
    assert bar(pieces, 1000, 20).plain == "╌╌████████░░▓▓▓▓▓▓▓▓"
    assert bar(pieces, 2000, 20).plain == "╌████░▓▓▓▓"


def test_a_list_fits_narrow_terminals() -> None:
    with open(os.devnull, "w") as nowhere:
        for width in (80, 120):
            console = Console(width=width, record=True, file=nowhere)
            console.print(list_picture([a_trace().request] * 3, width))
            lines = console.export_text().splitlines()
            assert len(lines) == 4
            assert all("req-1" in line for line in lines[1:])


@pytest.fixture(scope="module")
def server() -> Iterator[ServeProcess]:
    with ServeProcess("--local") as running:
        for name in ("first", "second"):
            answer = httpx.post(
                f"{running.url}/v1/completions",
                json=BODY,
                headers={"x-request-id": name},
                timeout=30,
            )
            answer.raise_for_status()
        yield running


def run(server: ServeProcess, *arguments: str) -> str:
    """The command's output."""
    result = CliRunner().invoke(
        app, ["trace", "--url", server.url, *arguments], env={"COLUMNS": "120"}
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_the_newest_are_listed(server: ServeProcess) -> None:
    lines = run(server).splitlines()
    assert "second" in lines[1]
    assert "first" in lines[2]
    assert [one["request_id"] for one in json.loads(run(server, "--json"))] == ["second", "first"]


def test_one_is_drawn(server: ServeProcess) -> None:
    text = run(server, "first")
    assert "8 generated" in text
    assert "this machine" in text
    assert "Zanzibar" not in text
    assert json.loads(run(server, "last", "--json"))["request"]["request_id"] == "second"


def test_it_is_written_for_perfetto(server: ServeProcess, tmp_path: Path) -> None:
    run(server, "last", "--chrome", str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) > 8
    result = CliRunner().invoke(
        app, ["trace", "last", "--url", server.url, "--chrome", str(tmp_path / "no" / "x")]
    )
    assert isinstance(result.exception, OutputFileError)


class Collector(HTTPServer):
    """Takes what is sent, as OpenTelemetry's collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CollectorRequest)
        self.got: list[tuple[str, dict[str, object]]] = []


class CollectorRequest(BaseHTTPRequestHandler):
    """One delivery."""

    def do_POST(self) -> None:
        """Take it."""
        assert isinstance(self.server, Collector)
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, json.loads(content)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_it_is_sent_to_a_collector(server: ServeProcess) -> None:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{collector.server_port}"
        run(server, "last", "--otlp", url)
        collector.shutdown()
    ((path, body),) = collector.got
    assert path == "/v1/traces"
    assert "resourceSpans" in body
    result = CliRunner().invoke(
        app, ["trace", "last", "--url", server.url, "--otlp", "http://127.0.0.1:9"]
    )
    assert isinstance(result.exception, EndpointError)
    assert "http://127.0.0.1:9/v1/traces" in str(result.exception)


def test_unknown_requests_are_named(server: ServeProcess) -> None:
    result = CliRunner().invoke(app, ["trace", "nothing", "--url", server.url])
    assert isinstance(result.exception, EndpointError)
    assert "'nothing'" in str(result.exception)


def test_an_export_needs_a_request(server: ServeProcess) -> None:
    result = CliRunner().invoke(app, ["trace", "--url", server.url, "--chrome", "x.json"])
    assert result.exit_code == 2
    assert "last" in result.output
