"""`tbcluster bench` against a real server."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from tbcluster.cli.main import app
from tbcluster.cluster.cluster import Cluster
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import EndpointError, OutputFileError
from tbcluster.server.keys import KeyFile, KeyRing
from tbcluster.server.options import ServerOptions
from tests.doubles.local_server import LocalServer
from tests.doubles.server import ServeProcess
from tests.doubles.waiting import wait_until

SMALL = ("--output-tokens", "6", "--repeats", "2", "--prompt-tokens", "16,40")


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ServeProcess() as server:
        yield server.url


def test_prompts_and_answers_have_exactly_the_tokens_asked_for(url: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    # In whatever order they are given, few clients come before many.
    result = bench("--url", url, "--streams", "3,1,3", *SMALL, "--json", str(file))
    assert result.exit_code == 0, result.output
    cells = json.loads(file.read_text())["cells"]
    assert [(one["cell"]["prompt_tokens"], one["cell"]["streams"]) for one in cells] == [
        *((16, 1), (16, 3), (40, 1), (40, 3))
    ]
    for one in cells:
        assert len(one["samples"]) == 2 * one["cell"]["streams"]
        for sample in one["samples"]:
            assert sample["error"] is None
            assert sample["prompt_tokens"] == one["cell"]["prompt_tokens"]
            assert sample["output_tokens"] == 6
    again = bench("--url", url, "--streams", "1", *SMALL, "--compare", str(file))
    assert again.exit_code == 0, again.output
    assert "x" in again.output


def test_chats_too(url: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    arguments = ("--streams", "1", "--prompt-tokens", "64", "--output-tokens", "4")
    result = bench("--url", url, "--api", "chat", *arguments, "--json", str(file))
    assert result.exit_code == 0, result.output
    (cell,) = json.loads(file.read_text())["cells"]
    assert {sample["prompt_tokens"] for sample in cell["samples"]} == {64}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--streams", "0"), "'0': give numbers from 1"),
        (("--prompt-tokens", "a"), "'a': give numbers from 1"),
        (("--compare", "/nowhere/file.json"), "cannot be read"),
    ],
)
def test_options_that_cannot_be_are_named(arguments: tuple[str, ...], words: str) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.output
    assert words in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--url", "http://127.0.0.1:1"), "name its address with --url"),
        (("--json", "/nowhere/file.json"), "no folder /nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(arguments: tuple[str, ...], words: str) -> None:
    error = bench(*arguments).exception
    assert isinstance(error, EndpointError | OutputFileError)
    assert words in str(error)


def test_a_prompt_that_is_too_long_is_said_before_anything_is_measured(
    url: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.json"
    # The bundled model holds 1,024 tokens.
    arguments = ("--streams", "1", "--prompt-tokens", "16,3000", "--json", str(file))
    result = bench("--url", url, *arguments)
    assert isinstance(result.exception, EndpointError)
    assert "3000 tokens" in str(result.exception)
    assert "tok/s" not in result.output
    assert not file.exists()


def test_what_was_measured_is_kept_when_the_server_goes(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    arguments = ["--streams", "1,2", "--prompt-tokens", "16", "--output-tokens", "4"]
    with ServeProcess() as server:
        command = [sys.executable, "-m", "tbcluster", "bench", "--url", server.url, *arguments]
        with subprocess.Popen(
            [*command, "--repeats", "400", "--json", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                before = requests_of(server.url)
                wait_until(lambda: requests_of(server.url) > before + 150, "it measures")
                server.process.kill()
                text, trouble = process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode == 1
    assert "Traceback" not in trouble
    assert "refuses a prompt" in trouble
    assert "Stopped early" in text
    body = json.loads(file.read_text())
    assert not body["is_whole"]
    (cell,) = body["cells"]
    assert cell["cell"]["streams"] == 1
    assert cell["num_good"] > 0
    assert cell["errors"]


def test_a_model_that_is_not_there(url: str) -> None:
    error = bench("--url", url, "--model", "nosuch").exception
    assert isinstance(error, EndpointError)
    assert "nosuch" in str(error)


def test_prompts_that_share_their_beginning_are_known(url: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    arguments = (
        "--streams",
        "1",
        "--prompt-tokens",
        "200",
        "--output-tokens",
        "2",
        "--repeats",
        "2",
    )
    result = bench("--url", url, *arguments, "--shared-prefix", "150", "--json", str(file))
    assert result.exit_code == 0, result.output
    (cell,) = json.loads(file.read_text())["cells"]
    # The one to warm up has left them.
    assert all(sample["cached_tokens"] >= 100 for sample in cell["samples"])
    other = bench("--url", url, *arguments, "--json", str(file))
    assert other.exit_code == 0, other.output
    (cell,) = json.loads(file.read_text())["cells"]
    assert all(sample["cached_tokens"] < 20 for sample in cell["samples"])


def test_a_chart_is_drawn(url: str, tmp_path: Path) -> None:
    file = tmp_path / "run.svg"
    result = bench("--url", url, "--streams", "1,2", *SMALL, "--chart", str(file))
    assert result.exit_code == 0, result.output
    text = file.read_text()
    assert "<svg" in text
    assert isinstance(bench("--chart", str(tmp_path / "a.gif")).exception, OutputFileError)


def test_it_says_that_a_key_is_needed(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    key = keys.add("anna")
    with Cluster(stages=1) as cluster, LocalServer(cluster, ServerOptions(KeyRing(keys))) as server:
        error = bench("--url", server.url).exception
        assert isinstance(error, EndpointError)
        assert "--key" in str(error)
        done = bench("--url", server.url, "--key", key, "--streams", "1", *SMALL)
        assert done.exit_code == 0, done.output


def test_ctrl_c_prints_what_there_is(url: str) -> None:
    arguments = ["--streams", "1", "--prompt-tokens", "16", "--output-tokens", "4"]
    command = [sys.executable, "-m", "tbcluster", "bench", "--url", url, *arguments]
    with subprocess.Popen(
        [*command, "--repeats", "100000"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            before = requests_of(url)
            wait_until(lambda: requests_of(url) > before + 60, "it measures")
            process.send_signal(signal.SIGINT)
            text, _ = process.communicate(timeout=30)
            assert process.returncode == 130
        finally:
            process.kill()
    assert "Stopped early" in text
    assert "tok/s" in text


def requests_of(url: str) -> int:
    """How many the server has ended well."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    counts = (line.rpartition(" ")[2] for line in lines if line.startswith("tbcluster_requests_to"))
    return sum(round(float(count)) for count in counts)


def test_another_server_is_measured_alike(tmp_path: Path) -> None:
    """mlx-lm's own, which knows no `ignore_eos` and may end its answers early."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(MODEL_PATH)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answers(url) or process.poll() is not None, "mlx-lm's server is up")
            assert process.poll() is None
            for api in ("completions", "chat"):
                file = tmp_path / f"{api}.json"
                options = ("--model", "default_model", "--api", api, "--json", str(file))
                arguments = ("--streams", "1", "--prompt-tokens", "80", "--output-tokens", "6")
                result = bench("--url", url, *options, *arguments)
                assert result.exit_code == 0, result.output
                (cell,) = json.loads(file.read_text())["cells"]
                assert {sample["prompt_tokens"] for sample in cell["samples"]} == {80}
                assert cell["output_tokens_per_s"] > 0
        finally:
            process.kill()


def answers(url: str) -> bool:
    """Whether a server is there."""
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.HTTPError:
        return False
