"""Clients that do not keep to the protocol, or take their time: each gets a 4xx or a clean end, and
none is in the way of others. Plain sockets against a server with short deadlines."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tbcluster.cluster.cluster import Cluster
from tbcluster.server.options import ServerOptions
from tests.doubles.checkpoints import write_endless_llama
from tests.doubles.local_server import LocalServer, read_all
from tests.doubles.waiting import wait_until

SOON_S = 0.4
MAX_BODY = 100_000
CHAT = "/v1/completions"
ENDLESS: dict[str, Any] = {"model": "endless", "prompt": [5], "max_tokens": 10**9, "temperature": 0}
BIG_FILE = "/static-offline-docs/swagger-ui-bundle.js"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder: Path = write_endless_llama(tmp_path_factory.mktemp("models") / "endless")
    options = ServerOptions(
        max_body_bytes=MAX_BODY,
        header_timeout_s=SOON_S,
        body_timeout_s=SOON_S,
        refused_body_s=5 * SOON_S,
        idle_timeout_s=2 * SOON_S,
        write_timeout_s=SOON_S,
    )
    with Cluster(folder, stages=2) as cluster, LocalServer(cluster, options) as running:
        yield running


@pytest.fixture(autouse=True)
def answers_as_before(server: LocalServer) -> Iterator[None]:
    yield
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
    wait_until(lambda: num_requests(server) == 0, "all requests have ended")
    wait_until(lambda: server.num_connections == 0, "all connections are closed")


def num_requests(server: LocalServer) -> int:
    return int(httpx.get(f"{server.url}/health").json()["num_requests"])


def post(body: bytes, path: str = CHAT, extra: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{extra}"
    return f"{head}Content-Length: {size}\r\n\r\n".encode() + body


def ask(server: LocalServer, request: bytes) -> bytes:
    """All that comes back until the server closes."""
    with server.connect() as client:
        client.sendall(request)
        return read_all(client)


def get_ready(client: socket.socket) -> bytes:
    """The answer to GET /ready on a connection that stays open."""
    client.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}"):
        answer += client.recv(10_000)
    return answer


def error_in(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-request-id: " in head
    error: dict[str, Any] = json.loads(body)["error"]
    return error


def test_a_client_that_says_nothing_is_let_go(server: LocalServer) -> None:
    with server.connect() as client:
        assert read_all(client) == b""


@pytest.mark.parametrize(
    "part", [b"G", b"GET /health HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\nHost: a"]
)
def test_a_head_that_does_not_end(server: LocalServer, part: bytes) -> None:
    answer = ask(server, part)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert error_in(answer)["code"] == "header_timeout"


def test_a_head_that_drips_is_not_waited_for_longer(server: LocalServer) -> None:
    started = time.monotonic()
    with server.connect() as client:
        client.settimeout(SOON_S / 5)
        answer = b""
        for byte in b"GET /health HTTP/1.1\r\nX-Long: " + b"x" * 1000:
            try:
                client.sendall(bytes([byte]))
                answer = client.recv(1000)
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            break
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert SOON_S <= time.monotonic() - started < 50 * SOON_S


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)) + b"\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",  # no Host
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e3\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000,
        b"\x00" * 100_000,
    ],
)
def test_what_is_no_http(server: LocalServer, garbage: bytes) -> None:
    answer = ask(server, garbage)
    # Where much was still on its way the system may take back the answer with the connection.
    assert answer.startswith(b"HTTP/1.1 400 ") or (not answer and len(garbage) > 65536)
    if answer:
        assert error_in(answer)["code"] == "invalid_http"


def test_pipelined_garbage_ends_after_the_answer_before_it(server: LocalServer) -> None:
    answer = ask(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n\x01\x02\x03\r\n\r\n")
    first, second = answer.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 ")
    assert second.startswith(b"400 ")


def test_pipelined_requests_are_answered_in_order(server: LocalServer) -> None:
    with server.connect() as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5)
        client.sendall(b"GET /nope HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = read_all(client)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 5 + [b"404"]


def test_an_idle_connection_is_closed(server: LocalServer) -> None:
    with server.connect() as client:
        for _ in range(2):
            assert get_ready(client).startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
        assert read_all(client) == b""
        assert time.monotonic() - started > SOON_S


def test_a_half_sent_head_on_a_used_connection(server: LocalServer) -> None:
    with server.connect() as client:
        assert get_ready(client).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"GET /hea")
        assert read_all(client).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_does_not_come(server: LocalServer) -> None:
    answer = ask(server, post(b'{"model": ', length=1000))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert error_in(answer)["code"] == "body_timeout"


def test_a_body_that_is_given_up(server: LocalServer) -> None:
    for _ in range(20):
        with server.connect() as client:
            client.sendall(post(b'{"model": ', length=1000))
    with server.connect() as client:
        client.sendall(post(b'{"model": ', length=1000))
        client.shutdown(socket.SHUT_WR)
        read_all(client)


@pytest.mark.parametrize(
    "chunk", [b"zz\r\nhello\r\n", b"5\r\nhelloXX", b"-1\r\n", b"5;" + b"a" * 90_000]
)
def test_a_malformed_chunk_in_a_body(server: LocalServer, chunk: bytes) -> None:
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = ask(server, head.encode() + chunk)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_body_that_is_too_long_is_refused_unread(server: LocalServer) -> None:
    answer = ask(server, post(b"", length=MAX_BODY + 1, extra="Connection: close\r\n"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert error_in(answer)["code"] == "body_too_large"


def test_whoever_sends_too_long_a_body_hears_why(server: LocalServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        for _ in range(5):
            answer = client.post(CHAT, content=bytes(50 * MAX_BODY))
            assert answer.status_code == 413
        assert client.get("/health").status_code == 200


def test_a_body_without_a_length_is_measured(server: LocalServer) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(10_000)

    answer = httpx.post(f"{server.url}{CHAT}", content=endless())
    assert answer.status_code == 413


def test_a_refused_body_is_not_read_for_ever(server: LocalServer) -> None:
    with server.connect() as client:
        client.sendall(post(b"", length=10**12))
        assert client.recv(10_000).startswith(b"HTTP/1.1 413 ")
        wait_until(lambda: is_cut(client), "the rest is no longer taken")


def is_cut(client: socket.socket) -> bool:
    """Whether the server takes no more of what is sent."""
    try:
        client.sendall(b"x")
    except ConnectionError:
        return True
    return False


def test_a_reader_that_stops_is_cut_and_its_request_ends(server: LocalServer) -> None:
    body = json.dumps({**ENDLESS, "stream": True, "n": 8}).encode()
    with server.connect(receive_bytes=2048) as client:
        client.sendall(post(body))
        wait_until(lambda: num_requests(server) == 8, "the request runs")
        wait_until(lambda: num_requests(server) == 0, "its slots have come back")
        assert b"[DONE]" not in read_all(client)


def test_a_reader_of_a_file_that_stops_is_cut(server: LocalServer) -> None:
    with server.connect(receive_bytes=2048) as client:
        client.sendall(f"GET {BIG_FILE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: server.num_requests > 0 or server.num_connections > 0, "it is answered")
        wait_until(lambda: server.num_connections == 0, "it is cut")
    assert len(httpx.get(f"{server.url}{BIG_FILE}").content) > 10**6


def test_a_slow_reader_is_not_cut(server: LocalServer) -> None:
    whole = httpx.get(f"{server.url}{BIG_FILE}").content
    with server.connect(receive_bytes=65536) as client:
        request = f"GET {BIG_FILE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        client.sendall(request.encode())
        parts = []
        while part := client.recv(65536):
            parts.append(part)
            time.sleep(SOON_S / 20)
        assert b"".join(parts).endswith(whole)


def test_too_many_connections_are_refused_at_once(server: LocalServer) -> None:
    connection = server.server.config.http_protocol_class
    connection.limit = 3  # type: ignore[attr-defined]
    try:
        clients = [server.connect() for _ in range(3)]
        wait_until(lambda: server.num_connections == 3, "they are connected")
        with server.connect() as client:
            answer = read_all(client)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert error_in(answer)["code"] == "too_many_connections"
        for client in clients:
            client.close()
        wait_until(lambda: server.num_connections == 0, "they are gone")
    finally:
        connection.limit = 1000  # type: ignore[attr-defined]


def test_an_upgrade_is_not_followed(server: LocalServer) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
    request = f"GET /health HTTP/1.1\r\nHost: localhost\r\n{upgrade}\r\n"
    assert ask(server, request.encode()).startswith(b"HTTP/1.1 200 ")
