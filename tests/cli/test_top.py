"""`tbcluster top`: pictures of made-up views, and of a real server's in a real terminal."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Self

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tbcluster.cli.main import app
from tbcluster.cli.top_view import bar, number, picture, size, sparkline
from tbcluster.errors import EndpointError
from tbcluster.server.live.view import (
    LiveEvent,
    LiveLink,
    LiveModel,
    LiveNode,
    LiveStage,
    LiveView,
)
from tests.doubles.server import ServeProcess
from tests.doubles.waiting import wait_until

GB = 10**9
DEADLINE_S = 30.0


def a_view(num_nodes: int = 3, **fields: object) -> LiveView:
    """A rack that serves."""
    names = [f"mac-{number}" for number in range(1, num_nodes + 1)]
    nodes = [
        LiveNode(
            name,
            "online",
            is_head=name == "mac-1",
            chip="Apple M4 Pro",
            memory_bytes=64 * GB,
            available_bytes=20 * GB,
            weight_bytes=30 * GB,
            kv_used_bytes=2 * GB,
            load=0.5,
            cpu_load=0.25,
            watts=45.0,
            power_source="zeus",
            temperature_c=61.0,
        )
        for name in names
    ]
    stages = [
        LiveStage(
            index,
            0,
            name,
            10 * index,
            10 * index + 9,
            "ready",
            compute_ms=12.5,
            wire_ms=0.21,
            wait_ms=3.0,
            load=0.5,
            kv_used_bytes=GB,
            kv_budget_bytes=8 * GB,
        )
        for index, name in enumerate(names)
    ]
    links = [
        LiveLink(one, other, "thunderbolt", True, True, 45.0, 38.0)
        for one, other in pairwise(names)
    ]
    usual: dict[str, object] = {
        "at": 1_700_000_000.0,
        "version": "0.1",
        "state": "ok",
        "cluster_name": "attic",
        "tokens_per_s": 31.4,
        "num_running": 2,
        "watts": 135.0,
        "joules_per_token": 4.2,
        "nodes": tuple(nodes),
        "links": tuple(links),
        "models": (LiveModel("qwen", "ready", tokens_per_s=31.4, stages=tuple(stages)),),
        "events": (LiveEvent(1, 1_700_000_000.0, "model", "good", "qwen is ready"),),
    }
    return LiveView(**{**usual, **fields})  # type: ignore[arg-type]


def shown(view: LiveView, width: int = 140, notice: str = "") -> str:
    """What a terminal so wide shows."""
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(picture(view, [1.0, 5.0, 2.0], width, notice))
    return console.export_text()


def test_everything_is_there() -> None:
    text = shown(a_view())
    for part in ("attic", "31.4 tokens/s", "135 W", "4.20 J/token", "mac-3", "Apple M4 Pro"):
        assert part in text
    for part in (
        "12.5 ms",
        "0.21 ms",
        "thunderbolt",
        "38.0 Gb/s",
        "45 us",
        "61 °C",
        "qwen is ready",
    ):
        assert part in text
    assert "mac-1 (head)" in text


@pytest.mark.parametrize("num_nodes", [1, 3, 8])
@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_it_fits_any_width(num_nodes: int, width: int) -> None:
    text = shown(a_view(num_nodes), width)
    assert all(len(line) <= width for line in text.splitlines())
    # What matters most is not cut off.
    assert f"mac-{num_nodes}" in text
    assert "12.5 ms" in text


def test_what_is_not_known_is_not_made_up() -> None:
    node = LiveNode("mac-1", "offline")
    text = shown(a_view(nodes=(node,), watts=None, joules_per_token=None, models=(), links=()))
    assert "- W" in text
    assert "- J/token" in text
    assert "lost" in text


def test_an_estimate_says_so() -> None:
    assert "~135 W" in shown(a_view(is_estimate=True))


def test_loading_shows_how_far_it_is() -> None:
    stage = LiveStage(0, 0, "mac-1", 0, 9, "loading", loaded_bytes=GB, total_bytes=4 * GB)
    model = LiveModel("qwen", "starting", doing="loading", stages=(stage,))
    text = shown(a_view(models=(model,), state="starting", doing="loading qwen"))
    assert "25 %" in text
    assert "starting loading qwen" in text


def test_what_others_say_does_not_act_on_the_terminal() -> None:
    bad = "a\x1b[2Jb\x07[bold]c[/]"
    stage = LiveStage(0, 0, bad, 0, 9, bad)
    view = a_view(
        cluster_name=bad,
        state=bad,
        doing=bad,
        nodes=(LiveNode(bad, bad, chip=bad, memory_bytes=GB),),
        links=(LiveLink(bad, bad, bad, True, True, 1.0, 1.0),),
        models=(LiveModel(bad, bad, doing=bad, error=bad, stages=(stage,)),),
        events=(LiveEvent(1, 1_700_000_000.0, "model", "good", bad),),
    )
    text = shown(view, 400, notice=bad)
    assert "\x1b" not in text
    assert "\x07" not in text
    # All of it is there as text, as often as it was said.
    assert text.count("[bold]c[/]") == 17


def test_figures() -> None:
    assert [number(value) for value in (None, 0, 3.14159, 31.4159, 3141.59)] == [
        "-",
        "0",
        "3.14",
        "31.4",
        "3,142",
    ]
    assert [size(value) for value in (None, 999, 1500, 64 * GB)] == [
        "-",
        "999 B",
        "1.50 kB",
        "64.0 GB",
    ]
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 1, 2]) == "▁▅█"
    assert bar(0.5).count("█") == 6


@pytest.fixture(scope="module")
def server() -> Iterator[ServeProcess]:
    with ServeProcess("--local") as running:
        yield running


def run(*arguments: str) -> str:
    """The command's output."""
    result = CliRunner().invoke(app, ["top", *arguments], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    return result.output


def test_once_of_a_real_server(server: ServeProcess) -> None:
    # Where nobody sits at a terminal once is enough.
    for arguments in ([], ["--once"]):
        text = run("--url", server.url, *arguments)
        assert "tbcluster-demo" in text
        assert "this machine" in text
    view = msgspec.json.decode(run("--url", server.url, "--once", "--json"), type=LiveView)
    assert view.models[0].name == "tbcluster-demo"


def test_json_lines_come_until_one_has_enough(server: ServeProcess) -> None:
    command = [sys.executable, "-m", "tbcluster", "top", "--json", "--url", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            times = [json.loads(process.stdout.readline())["at"] for _ in range(2)]
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    assert times[1] > times[0]


def test_wrong_addresses_are_named() -> None:
    result = CliRunner().invoke(app, ["top", "--url", "http://127.0.0.1:9"])
    assert isinstance(result.exception, EndpointError)
    assert "http://127.0.0.1:9" in str(result.exception)


class Terminal:
    """`tbcluster top` with a terminal of its own."""

    def __init__(self, url: str) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            command = [sys.executable, "-m", "tbcluster", "top", "--url", url]
            # Not the width of whoever runs the tests: wide enough for all there is to see.
            size = {"COLUMNS": "160", "LINES": "45"}
            environment = {**os.environ, **size, "TERM": "xterm-256color"}
            os.execve(command[0], command, environment)  # noqa: S606
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 160, 0, 0))
        self.screen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ChildProcessError):  # it has been waited for
            if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        os.close(self.descriptor)

    def sees(self, text: str) -> bool:
        """Whether it has shown this so far."""
        ready, _, _ = select.select([self.descriptor], [], [], 0.1)
        if ready:
            with suppress(OSError):  # it has ended
                self.screen += os.read(self.descriptor, 1 << 16).decode(errors="replace")
        return text in self.screen

    def ends(self) -> int:
        """Its exit status, once it has ended."""
        give_up = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up:
            self.sees("\0")  # its last words have to be read
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"it did not end:\n{self.screen[-2000:]}")


@pytest.mark.parametrize("key", ["q", "xq", "\x03"])
def test_it_is_live_in_a_terminal_until_a_key_ends_it(server: ServeProcess, key: str) -> None:
    with Terminal(server.url) as terminal:
        wait_until(lambda: terminal.sees("tbcluster-demo"), "the first view is there", DEADLINE_S)
        # The curve is for wide terminals alone.
        wait_until(lambda: terminal.sees("▁"), "the curve is there", DEADLINE_S)
        terminal.screen = ""
        wait_until(lambda: terminal.sees("tokens/s"), "another one is drawn", DEADLINE_S)
        os.write(terminal.descriptor, key.encode())
        assert terminal.ends() == 0
    # The screen that was there before is back.
    assert "\x1b[?1049l" in terminal.screen


def test_it_says_that_the_server_is_gone() -> None:
    with ServeProcess("--local") as server, Terminal(server.url) as terminal:
        wait_until(lambda: terminal.sees("tbcluster-demo"), "the first view is there", DEADLINE_S)
        server.process.kill()
        wait_until(lambda: terminal.sees("what is shown is old"), "it says so", DEADLINE_S)
        os.write(terminal.descriptor, b"q")
        assert terminal.ends() == 0
