"""What clients are told before the cluster can answer, and that their connections stay."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.status import ClusterState
from tbcluster.server.keys import KeyFile, KeyRing
from tbcluster.server.options import ServerOptions
from tests.doubles.local_server import LocalServer

MODEL = "tbcluster-demo"
PAGE = "https://chat.example"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
MESSAGE = f"{MODEL} is being started (opening the model): send the request again later"
MAX_BODY = 2048


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A server whose cluster is not there yet."""
    options = ServerOptions(cors_origins=(PAGE,), max_body_bytes=MAX_BODY)
    with LocalServer(Cluster(stages=1), options, is_open=False) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: LocalServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=10) as made:
        yield made


OPENAI = {"message": MESSAGE, "type": "server_error", "param": None, "code": "starting"}


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/chat/completions", OPENAI),
        ("/v1/embeddings", OPENAI),
        ("/tokenize", OPENAI),
        ("/no/such/path", OPENAI),
        ("/v1/messages", {"type": "overloaded_error", "message": MESSAGE}),
        ("/v1/messages/count_tokens", {"type": "overloaded_error", "message": MESSAGE}),
        ("/api/chat", MESSAGE),
        ("/api/pull", MESSAGE),
    ],
)
def test_requests_are_asked_to_come_again_in_their_dialect(
    client: httpx.Client, path: str, error: Any
) -> None:
    answer = client.post(path, json=CHAT)
    assert answer.status_code == 503
    assert answer.json()["error"] == error
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/v1/models", "/docs", "/openapi.json", "/api/tags"])
def test_all_methods_are(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert bool(answer.content) == (method != "HEAD")


def test_models_answer_as_who_asks_expects(client: httpx.Client) -> None:
    answer = client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})
    assert answer.json()["error"]["type"] == "overloaded_error"


def test_health_says_what_is_being_done(client: httpx.Client) -> None:
    health = client.get("/health")
    assert health.status_code == 503
    assert health.json() == {
        "status": "starting",
        "doing": "opening the model",
        "model": MODEL,
        "num_requests": 0,
        "error": None,
        "kv_cache": None,
        "stages": [],
    }
    ready = client.get("/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "starting"})


def test_metrics_count_from_the_start(client: httpx.Client) -> None:
    client.post("/v1/completions", json={})
    page = client.get("/metrics")
    assert page.status_code == 200
    assert 'tbcluster_rejected_total{reason="starting"}' in page.text
    assert "tbcluster_steps" not in page.text


def test_other_origins_and_hosts_are_held_off_as_later(
    client: httpx.Client, server: LocalServer
) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    allowed = client.options("/v1/chat/completions", headers=asks)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    refused = client.post("/v1/chat/completions", json=CHAT, headers={"Origin": PAGE})
    assert refused.status_code == 503
    assert "retry-after" in refused.headers["access-control-expose-headers"]
    foreign = client.get("/health", headers={"Host": f"evil.example:{server.address[1]}"})
    assert foreign.json()["error"]["code"] == "foreign_host"


def test_bodies_are_bounded_as_later(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", content=b"x" * (MAX_BODY + 1))
    assert answer.json()["error"]["code"] == "body_too_large"


def test_keys_are_asked_for_as_later(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = KeyFile(tmp_path_factory.mktemp("settings") / "keys.json")
    known = {"Authorization": f"Bearer {file.add('alice')}"}
    options = ServerOptions(keys=KeyRing(file))
    with (
        LocalServer(Cluster(stages=1), options, is_open=False) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        assert client.get("/health").json() == {"status": "starting"}
        assert client.get("/health", headers=known).json()["doing"] == "opening the model"
        assert client.get("/metrics").status_code == 401
        strange = client.post("/v1/chat/completions", json=CHAT)
        assert strange.json()["error"]["code"] == "invalid_api_key"
        ours = client.post("/v1/chat/completions", json=CHAT, headers=known)
        assert ours.json()["error"]["code"] == "starting"


class Connection:
    """One connection, which is not made again when it is lost."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._http = http.client.HTTPConnection(*address, timeout=60)
        self._http.connect()
        self._http.auto_open = 0

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        content = None if body is None else json.dumps(body)
        self._http.request(method, path, content, {"Content-Type": "application/json"})
        answer = self._http.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        self._http.close()


def test_the_cluster_takes_over_without_a_dropped_connection() -> None:
    doing: list[str] = []

    def ask_health(_: object) -> None:
        doing.append(connection.ask("GET", "/health")[1]["doing"])

    cluster = Cluster(stages=1, on_progress=ask_health)
    with LocalServer(cluster, is_open=False) as server:
        connection = Connection(server.address)
        status, refused = connection.ask("POST", "/v1/chat/completions", CHAT)
        assert (status, refused["error"]["code"]) == (503, "starting")
        with cluster:
            assert doing[0] == "loading stage 0"
            assert any(words.startswith("loading stage 0: ") for words in doing)
            # It could answer, and nobody would ask it yet.
            assert cluster.status().state is ClusterState.READY
            assert connection.ask("GET", "/ready") == (503, {"status": "starting"})
            assert connection.ask("GET", "/health")[1]["status"] == "starting"
            server.server.open()
            assert connection.ask("GET", "/ready") == (200, {"status": "ok"})
            status, answered = connection.ask("POST", "/v1/chat/completions", CHAT)
            assert (status, answered["object"]) == (200, "chat.completion")
            page = httpx.get(f"{server.url}/metrics").text
            # What was counted before is not forgotten.
            assert 'tbcluster_rejected_total{reason="starting"} 1.0' in page
        connection.close()


def test_a_cluster_that_did_not_come_up() -> None:
    cluster = Cluster(stages=1)
    with LocalServer(cluster, is_open=False) as server, httpx.Client(base_url=server.url) as http:
        cluster.close()
        health = http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "closed")
        refused = http.post("/v1/chat/completions", json=CHAT)
        assert refused.json()["error"]["code"] == "shutting_down"
