"""The command line, as a user runs it."""

import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.doubles.checkpoints import write_endless_llama
from tests.doubles.commands import run, run_here
from tests.doubles.processes import is_alive, run_dirs, worker_pids
from tests.doubles.server import ServeProcess
from tests.doubles.waiting import wait_until


@pytest.fixture
def own_tmp() -> Iterator[Path]:
    """A TMPDIR for one server, which must leave nothing in it. Under /tmp, since the path of a
    socket is short."""
    folder = Path(tempfile.mkdtemp(prefix="tbs-", dir="/tmp"))
    yield folder
    left = list(folder.iterdir())
    shutil.rmtree(folder)
    assert not left


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-body", "0"], "0 bytes hold no request"),
        (["--idle-unload", "0"], "more than 0 minutes"),
        (["--cors-origin", "chat.example"], "'chat.example' is no origin"),
        (["--cors-origin", "https://chat.example/page"], "is no origin"),
    ],
)
def test_options_that_can_only_be_mistakes_are_refused(arguments: list[str], words: str) -> None:
    done = run_here("serve", *arguments)
    assert done.returncode == 2
    assert words in " ".join(re.sub("[│╭╮╰╯─]", " ", done.stderr).split())


def test_the_printed_curl_streams_a_right_answer_and_ctrl_c_leaves_nothing(own_tmp: Path) -> None:
    server = ServeProcess("--stages", "2", env={"TMPDIR": str(own_tmp)})
    with server:
        found = re.search(r"^curl .*$", server.output, re.MULTILINE)
        assert found, server.output
        command = shlex.split(found.group())
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.count("data: ") > 3
        assert done.stdout.endswith("data: [DONE]\n\n")
        text = "".join(re.findall(r'"content":"([^"]*)"', done.stdout))
        assert "Paris" in text
        assert "computing in float32" in server.output or sys.platform == "darwin"
        pids = worker_pids(server.process.pid)
        assert len(pids) >= 2
        assert run_dirs(own_tmp)
    assert server.process.returncode in (0, 130)
    assert not any(is_alive(pid) for pid in pids)
    assert not run_dirs(own_tmp)
    assert "Traceback" not in server.output


def test_sigterm_leaves_nothing(own_tmp: Path) -> None:
    server = ServeProcess("--stages", "1", env={"TMPDIR": str(own_tmp)})
    with server:
        pids = worker_pids(server.process.pid)
        server.process.terminate()
        assert server.process.wait(timeout=30) == 143
    assert not any(is_alive(pid) for pid in pids)
    assert not run_dirs(own_tmp)


def test_sigterm_lets_a_running_answer_finish(tmp_path: Path) -> None:
    folder = write_endless_llama(tmp_path / "endless")
    greedy = {"model": "endless", "prompt": [5], "temperature": 0}
    body = {**greedy, "max_tokens": 1000, "stream": True}
    server = ServeProcess(str(folder), "--stages", "1")
    with server, httpx.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        server.process.terminate()
        wait_until(lambda: "finishing 1 request" in server.output, "it says what it waits for")
        assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.process.wait(timeout=30) == 143
    assert "Traceback" not in server.output


def test_ctrl_c_while_loading_leaves_nothing(own_tmp: Path) -> None:
    server = ServeProcess("--stages", "2", env={"TMPDIR": str(own_tmp)})
    wait_until(lambda: len(worker_pids(server.process.pid)) > 0, "a stage is being loaded")
    pids = worker_pids(server.process.pid)
    assert server.interrupt() == 130
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the workers are gone")
    assert not run_dirs(own_tmp)
    assert "Traceback" not in server.output


def test_a_port_in_use_is_known_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", str(port))
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "owner/name"], "offline mode is on"),
        (["serve", "--stages", "20"], "20 stages are too many"),
        (["generate", "/no/such/folder"], "no folder '/no/such/folder'"),
        (["generate", "--stages", "1", "--prompt", "\udcff"], "no valid text"),
        (["serve", "--host", "a..b", "--insecure"], "cannot listen on a..b"),
        (["serve", "--host", "127.0.0.2", "--require-keys"], "tbcluster keys add NAME"),
    ],
)
def test_errors_are_sentences(arguments: list[str], words: str) -> None:
    if arguments[0] == "serve":
        arguments = [*arguments, "--port", "0"]
    done = run(*arguments, env={"HF_HUB_OFFLINE": "1", "TBCLUSTER_KEYS": "/no/such/keys.json"})
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "/no/such/folder"], "no folder '/no/such/folder'"),
        (["serve", "no such model"], "no Hugging Face id of the form owner/name"),
        (["generate", "~nobody-of-this-name/x"], "no folder '~nobody-of-this-name/x'"),
        (["generate", "x" * 300], "no folder"),
        (["serve", "--host", "10.1.2.3"], "10.1.2.3 can be reached from elsewhere"),
        (["serve", "--host", "10.1.2.3"], "or let everyone in with --insecure"),
        (["serve", "--insecure", "--require-keys"], "contradict each other"),
        (["keys", "revoke", "nobody"], "no key 'nobody'"),
        (["keys", "add", "a b"], "no name for a key"),
    ],
)
def test_mistakes_are_known_before_anything_runs(arguments: list[str], words: str) -> None:
    done = run_here(*arguments, env={"TBCLUSTER_KEYS": "/no/such/keys.json"})
    assert done.returncode == 1
    assert words in done.stderr


def test_a_corrupt_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    done = run("serve", str(tmp_path), "--port", "0")
    assert done.returncode == 1
    assert "config.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_generate_prints_the_answer_alone_on_standard_output() -> None:
    question = "What is the capital of France?"
    done = run("generate", "--prompt", question, "--stages", "2")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert "prompt tokens" in done.stderr
    # From standard input, less its last newline.
    piped = run("generate", "--prompt", "-", "--stages", "1", stdin=f"{question}\n")
    assert piped.stdout == done.stdout


def test_generate_needs_something_on_standard_input() -> None:
    empty = run_here("generate", "--prompt", "-")
    assert empty.returncode == 1
    assert "standard input is empty" in empty.stderr


def test_chat_answers_starts_over_and_ends() -> None:
    question = "What is the capital of France?"
    said = f"/help\n{question}\nhello\n/new\n{question}\n/quit\n"
    done = run("chat", "--stages", "1", stdin=said)
    assert done.returncode == 0, done.stderr
    assert "there is no /help: /new starts over" in done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == 3
    # The same answer as the first: nothing of the turns before /new was left.
    assert answers[0] == answers[2]
    assert "Paris" in answers[0]


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("tbcluster 0.")
    text = run_here("--help").stdout
    for command in ("serve", "generate", "chat", "keys"):
        assert command in text


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_help_says_which_commands_use_one_machine(command: str) -> None:
    assert "on this machine alone" in " ".join(run_here(command, "--help").stdout.split())
