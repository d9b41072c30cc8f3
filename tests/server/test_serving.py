"""How the server ends: requests finish, or are ended with an error of their own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tbcluster.cluster.cluster import Cluster
from tbcluster.server.options import ServerOptions
from tests.doubles.checkpoints import write_endless_llama
from tests.doubles.local_server import LocalServer
from tests.doubles.waiting import wait_until

ENDLESS: dict[str, Any] = {"model": "endless", "prompt": [5], "temperature": 0, "stream": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_endless_llama(tmp_path_factory.mktemp("models") / "endless")


@pytest.fixture
def cluster(folder: Path) -> Iterator[Cluster]:
    with Cluster(folder, stages=1) as running:
        yield running


def events(lines: Iterator[str]) -> list[str]:
    return [line.removeprefix("data: ") for line in lines if line]


def test_running_requests_finish_and_new_ones_are_refused(cluster: Cluster) -> None:
    with LocalServer(cluster) as server, httpx.Client(base_url=server.url) as http:
        assert http.get("/ready").json() == {"status": "ok"}
        body = {**ENDLESS, "max_tokens": 400}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.interrupt()
            wait_until(lambda: bool(server.notes), "it says what it waits for")
            assert server.notes == ["finishing 1 request, Ctrl-C again ends it"]
            # The connection from before is still there.
            ready = http.get("/ready")
            assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
            refused = http.post("/v1/messages", json=ENDLESS)
            assert refused.status_code == 503
            assert refused.headers["connection"] == "close"
            assert int(refused.headers["retry-after"]) > 0
            assert refused.json()["error"]["type"] == "overloaded_error"
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server.url}/ready")
            rest = events(lines)
        assert rest[-1] == "[DONE]"
        assert json.loads(rest[-2])["choices"][0]["finish_reason"] == "length"
        wait_until(lambda: not server.is_running, "the server has ended")


@pytest.mark.parametrize("is_told_twice", [True, False])
def test_what_does_not_finish_ends_with_an_error(cluster: Cluster, is_told_twice: bool) -> None:
    options = ServerOptions(drain_s=30 if is_told_twice else 0.2)
    with LocalServer(cluster, options) as server:
        body = {**ENDLESS, "max_tokens": 10**9}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.interrupt()
            if is_told_twice:
                wait_until(lambda: bool(server.notes), "it has begun to wait")
                server.interrupt()
            rest = events(lines)
        assert json.loads(rest[-2])["error"]["code"] == "shutting_down"
        assert rest[-1] == "[DONE]"
        wait_until(lambda: not server.is_running, "the server has ended")


def test_an_idle_server_ends_at_once(cluster: Cluster) -> None:
    with LocalServer(cluster) as server, httpx.Client(base_url=server.url) as http:
        http.get("/health")
        server.interrupt()
        wait_until(lambda: not server.is_running, "the server has ended", deadline_s=20)
        assert server.notes == []
