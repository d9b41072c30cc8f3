"""`tbcluster serve` from when its port is bound until it can answer: on the head node of a rack,
whose other node does not come."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tbcluster.transport.curve import new_keys
from tests.doubles.processes import is_alive
from tests.doubles.server import ServeProcess
from tests.doubles.speeds import note_speeds
from tests.doubles.trusted import TrustedHead
from tests.doubles.waiting import wait_until

AWAY = "mini2"
WAITING = f"waiting for {AWAY}"
CHAT = {
    "model": "tbcluster-demo",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 16,
}


@pytest.fixture
def head(tmp_path: Path) -> TrustedHead:
    """A head node that knows of another node."""
    made = TrustedHead(tmp_path / "home")
    note_speeds(made.folder.path, ("float32 128",), [one.node_id for one in made.members.nodes()])
    made.members.admit(made.members.invite(60), new_keys().public, AWAY)
    return made


@contextmanager
def waiting_server(
    head: TrustedHead, *arguments: str
) -> Iterator[tuple[ServeProcess, httpx.Client]]:
    """A server that waits for the other node, and a client with one connection."""
    server = ServeProcess(*arguments, env=home(head))
    limits = httpx.Limits(max_connections=1)
    try:
        wait_until(lambda: server.address is not None, "the port is bound")
        assert server.address is not None
        with httpx.Client(base_url=server.address, timeout=60, limits=limits) as client:
            wait_until(lambda: client.get("/health").json()["doing"] == WAITING, "it says so")
            yield server, client
    finally:
        server.interrupt()


def home(head: TrustedHead) -> dict[str, str]:
    return {"TBCLUSTER_HOME": str(head.folder.path)}


def local_port(client: httpx.Client) -> int:
    """The client's own end of the connection that its next request uses."""
    stream = client.get("/ready").extensions["network_stream"]
    port: int = stream.get_extra_info("client_addr")[1]
    return port


def test_clients_are_told_what_is_waited_for_and_then_answered(head: TrustedHead) -> None:
    with waiting_server(head) as (server, client):
        port = local_port(client)
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "starting")
        refused = client.post("/v1/chat/completions", json=CHAT)
        assert refused.status_code == 503
        assert WAITING in refused.json()["error"]["message"]
        shown = json.loads(run("status", "--json", env=home(head)).stdout)
        assert shown["serving_state"] == f"starting: {WAITING}"
        wait_until(lambda: WAITING in server.output, "its user is told")
        # From here on nobody is missing.
        head.members.revoke(AWAY)
        wait_until(lambda: client.get("/ready").is_success, "it can answer")
        answer = client.post("/v1/chat/completions", json=CHAT)
        assert "Paris" in answer.json()["choices"][0]["message"]["content"]
        assert local_port(client) == port
        assert client.get("/health").json()["doing"] is None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_waiting_ends_at_once_when_told_to(
    head: TrustedHead, number: signal.Signals, status: int
) -> None:
    with waiting_server(head) as (server, _):
        wait_until(lambda: bool(children(server)), "it has an agent of its own")
        started = children(server)
        told_at = time.monotonic()
        os.killpg(server.process.pid, number)
        assert server.process.wait(timeout=30) == status
        # A second, with room for a very busy machine.
        assert time.monotonic() - told_at < 20
        wait_until(lambda: not any(map(is_alive, started)), "its processes are gone", 20)
    assert "Traceback" not in server.output


def test_a_start_that_fails_ends_the_server(head: TrustedHead) -> None:
    with waiting_server(head, "--stages", "99") as (server, client):
        head.members.revoke(AWAY)
        assert server.process.wait(timeout=30) == 1
        with pytest.raises(httpx.TransportError):
            client.get("/health")
    assert "99 stages are too many" in server.output
    assert "Traceback" not in server.output


SWALLOWS = """
import os, signal
from tbcluster.cli.ending import end_on_signals
from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.models import Models
from tbcluster.server.options import ServerOptions
from tbcluster.server.serving import Server, listen

server = Server(Models.of(Cluster(stages=1)), ServerOptions())
end_on_signals(server)
with listen("127.0.0.1", 0) as listener, server.answering(listener):
    try:
        os.kill(os.getpid(), signal.{number.name})
    except BaseException:
        print("swallowed")
    server.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_forgotten_where_a_library_swallows_it(number: signal.Signals) -> None:
    command = [sys.executable, "-c", SWALLOWS.format(number=number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "swallowed\n"
    # Ctrl-C's own status is given by the entry point.
    assert done.returncode == (143 if number is signal.SIGTERM else -signal.SIGINT)


STUCK = """
import threading
from tbcluster.cli.ending import cutting_off
from tbcluster.cluster.models import loading
from tbcluster.cluster.models.catalogue import Catalogue, Loadable
from tbcluster.cluster.models.models import Models

loading.CLOSE_PATIENCE_S = 0.1
downloading = threading.Event()

def download(loadable, **_):
    threading.Thread(target=threading.Event().wait).start()  # Python waits for it
    downloading.set()
    threading.Event().wait()

models = Models(Catalogue((Loadable("a", "a"),)), download)
with cutting_off(models), models.start():
    models.ask("a")
    downloading.wait()
    raise {ending}
"""


@pytest.mark.parametrize(
    ("ending", "status"), [("KeyboardInterrupt", 130), ("SystemExit(143)", 143)]
)
def test_a_download_that_cannot_be_interrupted_is_cut_off(ending: str, status: int) -> None:
    command = [sys.executable, "-c", STUCK.format(ending=ending)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (status, "")


def children(server: ServeProcess) -> list[int]:
    return [child.pid for child in psutil.Process(server.process.pid).children(recursive=True)]


def run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tbcluster", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, **env}
    )
