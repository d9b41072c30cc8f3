"""Keys, their limits, and names of this machine, as clients meet them."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tbcluster.cluster.cluster import Cluster
from tbcluster.server.access import host_name, is_local_name
from tbcluster.server.keys import KeyFile, KeyRing
from tbcluster.server.options import ServerOptions
from tests.doubles.local_server import LocalServer
from tests.doubles.waiting import wait_until

MODEL = "tbcluster-demo"
SHORT = {"model": MODEL, "prompt": "Hello", "max_tokens": 2}
PAGE = "https://chat.example"


@dataclass(frozen=True)
class Guarded:
    server: LocalServer
    file: KeyFile
    key: str

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.server.url, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = KeyFile(tmp_path_factory.mktemp("settings") / "keys.json")
    key = file.add("alice")
    options = ServerOptions(keys=KeyRing(file), cors_origins=(PAGE,), logs_access=True)
    with Cluster(stages=1) as cluster, LocalServer(cluster, options) as server:
        yield Guarded(server, file, key)


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with Cluster(stages=1) as cluster, LocalServer(cluster) as server:
        yield server


def test_both_ways_to_send_a_key(guarded: Guarded) -> None:
    for headers in (
        {"Authorization": f"Bearer {guarded.key}"},
        {"authorization": f"bearer  {guarded.key}"},
        {"x-api-key": guarded.key},
        {"x-api-key": guarded.key, "Authorization": "Bearer nonsense"},
    ):
        url = f"{guarded.server.url}/v1/models"
        assert httpx.get(url, headers=headers).status_code == 200, headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer tbc-wrong"},
        {"Authorization": "Basic YWxpY2U6eA=="},
        {"x-api-key": ""},
        {"x-api-key": "é".encode().decode("latin-1")},
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/nothing", "/metrics", "/docs", "/openapi.json", "/tokenize", "/"]
)
def test_without_a_key_nothing_is_told(
    guarded: Guarded, headers: dict[str, str], path: str
) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = httpx.get(f"{guarded.server.url}{path}", headers=raw)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-request-id"]
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert MODEL not in answer.text


def test_the_refusal_is_in_the_dialect(guarded: Guarded) -> None:
    answer = httpx.post(f"{guarded.server.url}/v1/messages", json={})
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert set(httpx.post(f"{guarded.server.url}/api/chat", json={}).json()) == {"error"}


def test_probes_need_no_key_and_learn_the_status_alone(guarded: Guarded) -> None:
    assert httpx.get(f"{guarded.server.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{guarded.server.url}/ready").json() == {"status": "ok"}
    with guarded.client() as http:
        assert http.get("/health").json()["model"] == MODEL


def test_a_running_server_sees_new_keys_and_revoked_ones(guarded: Guarded) -> None:
    key = guarded.file.add("bob")
    with guarded.client(key) as http:
        wait_until(lambda: http.get("/v1/models").status_code == 200, "the key is known")
        guarded.file.revoke("bob")
        wait_until(lambda: http.get("/v1/models").status_code == 401, "the key is revoked")


def test_requests_per_minute(guarded: Guarded) -> None:
    key = guarded.file.add("slow", requests_per_minute=2)
    with guarded.client(key) as http:
        wait_until(lambda: http.get("/v1/models").status_code == 200, "the key is known")
        first = http.post("/v1/completions", json=SHORT)
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        http.post("/v1/completions", json=SHORT)
        refused = http.post("/v1/completions", json=SHORT)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        # What asks for no work costs nothing, and others have limits of their own.
        assert http.get("/v1/models").status_code == 200
    with guarded.client() as http:
        assert http.post("/v1/completions", json=SHORT).status_code == 200


def test_tokens_count_while_an_answer_runs(guarded: Guarded) -> None:
    key = guarded.file.add("eager", tokens_per_minute=20)
    long = {"prompt": "Hello " * 30, "max_tokens": 900, "ignore_eos": True, "stream": True}
    with guarded.client(key) as http:
        wait_until(lambda: http.get("/v1/models").status_code == 200, "the key is known")
        with http.stream("POST", "/v1/completions", json={**SHORT, **long}) as running:
            next(running.iter_lines())
            refused = http.post("/v1/completions", json=SHORT)
    assert refused.status_code == 429
    assert "20 tokens a minute" in refused.json()["error"]["message"]
    wait_until(lambda: guarded.server.num_requests == 0, "the stream has ended")


def test_pages_of_a_named_origin_may_ask(guarded: Guarded) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    url = f"{guarded.server.url}/v1/completions"
    preflight = httpx.options(url, headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    # Errors can be read by the page too.
    assert httpx.get(url, headers={"Origin": PAGE}).headers["access-control-allow-origin"] == PAGE
    foreign = httpx.options(url, headers={**asked, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in foreign.headers


def test_the_log_names_the_key_but_never_shows_it(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tbcluster.access"), guarded.client() as http:
        secret = {"model": MODEL, "prompt": "the launch code", "max_tokens": 1}
        http.post("/v1/completions?key=hidden", json=secret, headers={"x-request-id": "id-7"})
        wait_until(lambda: "id-7" in caplog.text, "the line is there")
    line = next(record.message for record in caplog.records if "id-7" in record.message)
    assert line.startswith("POST /v1/completions 200 ")
    assert line.endswith("ms key=alice id=id-7")
    for hidden in (guarded.key, "launch", "hidden"):
        assert hidden not in caplog.text


def test_no_cors_unless_asked_for(local: LocalServer) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    preflight = httpx.options(f"{local.url}/v1/completions", headers=asked)
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example"])
def test_a_page_that_rebinds_its_name_does_not_reach_the_model(
    local: LocalServer, host: str
) -> None:
    answer = httpx.post(f"{local.url}/v1/completions", json=SHORT, headers={"Host": host})
    assert answer.status_code == 403
    assert "--require-keys" in answer.json()["error"]["message"]


def test_ids_are_taken_over_where_they_are_sane(local: LocalServer) -> None:
    def given(value: str, path: str = "/ready") -> str:
        answer = httpx.get(f"{local.url}{path}", headers={"x-request-id": value})
        return str(answer.headers["x-request-id"])

    assert given("a-B_c.9") == "a-B_c.9"
    assert given("a" * 64, "/nope") == "a" * 64
    for odd in ("a" * 65, "a b", "<x>", ""):
        assert given(odd) not in (odd, "")
    assert given("") != given("")


def test_the_docs_page_needs_nothing_from_elsewhere(local: LocalServer) -> None:
    page = httpx.get(f"{local.url}/docs").text
    assert "http://" not in page.replace(local.url, "")
    assert "https://" not in page
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert asset in page
        assert httpx.get(f"{local.url}/static-offline-docs/{asset}").status_code == 200
    paths = httpx.get(f"{local.url}/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/health", "/metrics"} <= set(paths)
    for path, operations in paths.items():
        for operation in operations.values():
            assert operation["description"], path
            assert {"4XX", "5XX"} <= set(operation["responses"])
    assert httpx.get(f"{local.url}/redoc").status_code == 404


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("app.localhost:80", True),
        ("127.0.0.1:8080", True),
        ("127.9.9.9", True),
        ("[::1]:8080", True),
        ("host.docker.internal:8080", True),
        ("10.0.0.0", False),
        ("192.168.1.5", False),
        ("[fe80::1]", False),
        ("notlocalhost", False),
        ("127.0.0.1.evil.example", False),
        ("[::1", True),
    ],
)
def test_names_of_this_machine(host: str, is_local: bool) -> None:
    assert is_local_name(host_name(host)) == is_local
