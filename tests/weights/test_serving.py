"""The server of a node's weights, over real connections."""

import os
import select
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tbcluster.weights import answering, serving
from tbcluster.weights.neighbour import NeighbourClient
from tbcluster.weights.resources import Resource, path_of
from tbcluster.weights.serving import MAX_UNKNOWN, WeightServer
from tbcluster.wire.control import STOP_LINE, Bound, Failed, decode_report, encode_line
from tbcluster.wire.errands import Accepted, Neighbour, ShareSpec
from tests.doubles.tls_peers import ShelfDouble, TlsPeer, ask
from tests.doubles.waiting import wait_until

CONTENT = os.urandom(5 << 20)
FILE = path_of(Resource("org/tiny", "abc", "model.safetensors"))
PART = path_of(Resource("org/tiny", "abc", "part.safetensors"))
LEDGER = path_of(Resource("org/tiny", "abc", None))


@dataclass
class Served:
    """A server that has a whole file and parts of one, and the peer that it accepts."""

    server: WeightServer
    shelf: ShelfDouble
    own: TlsPeer
    peer: TlsPeer
    stranger: TlsPeer

    def get(self, path: str, byte_range: str | None = None) -> tuple[int, bytes]:
        return self.peer.get(self.server.port, [self.own.certificate], path, byte_range)

    def is_refused(self, who: TlsPeer) -> bool:
        """TLS 1.3's client ends its handshake first: a refusal comes with the first answer."""
        try:
            who.get(self.server.port, [self.own.certificate], FILE)
        except OSError:
            return True
        return False


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    own, peer, stranger = (TlsPeer.at(folder / name) for name in ("own", "peer", "stranger"))
    shelf = ShelfDouble()
    (folder / "model.safetensors").write_bytes(CONTENT)
    shelf.put("model.safetensors", folder / "model.safetensors", (0, len(CONTENT)))
    shelf.put("part.safetensors", folder / "model.safetensors", (0, 100), (200, 300))
    shelf.ledgers["org/tiny", "abc"] = folder / "ledger"
    (folder / "ledger").write_bytes(b"a ledger\n")
    with closing(WeightServer(shelf, own.files)) as server:
        server.accept(["no certificate", peer.certificate])
        yield Served(server, shelf, own, peer, stranger)


def test_files_and_parts_of_them_are_given(served: Served) -> None:
    assert served.get(FILE) == (200, CONTENT)
    assert served.get(FILE, "bytes=1000000-4000000") == (206, CONTENT[1_000_000:4_000_001])
    assert served.get(FILE, f"bytes=0-{len(CONTENT) - 1}") == (206, CONTENT)
    assert served.get(FILE, "bytes=5000000-") == (206, CONTENT[5_000_000:])
    assert served.get(LEDGER) == (200, b"a ledger\n")


def test_of_a_ledger_only_what_is_new_is_asked_for(served: Served) -> None:
    neighbour = Neighbour("own", "own", ("127.0.0.1",), served.server.port, served.own.certificate)
    with closing(NeighbourClient(neighbour, "org/tiny", "abc", served.peer.files)) as client:
        assert client.ledger() == b"a ledger\n"
        assert client.ledger(2) == b"ledger\n"
        assert client.ledger(9) == b""
        assert client.ledger(10) is None
    with closing(NeighbourClient(neighbour, "org/tiny", "abd", served.peer.files)) as client:
        assert client.ledger() is None


def test_only_what_is_verified_is_given(served: Served) -> None:
    assert served.get(PART, "bytes=200-299") == (206, CONTENT[200:300])
    for byte_range in ("bytes=200-300", "bytes=50-250", "bytes=100-100", "bytes=5000-6000", None):
        assert served.get(PART, byte_range) == (404, b"")


@pytest.mark.parametrize(
    ("path", "byte_range", "status"),
    [
        (path_of(Resource("org/tiny", "abd", "model.safetensors")), None, 404),
        (path_of(Resource("org/tiny", "abd", None)), None, 404),
        ("/org%2Ftiny/abc/../../secret", None, 400),
        ("/", None, 400),
        (FILE, "bytes=5-4", 416),
        (FILE, "bytes=-5", 416),
        (FILE, f"bytes={len(CONTENT)}-", 416),
        (FILE, "bytes=0-1,3-4", 416),
        (FILE, "lines=0-1", 416),
        (FILE, f"bytes=0-{len(CONTENT)}", 416),
        (FILE, f"bytes=0-{'9' * 30}", 416),
    ],
)
def test_anything_else_is_refused(
    served: Served, path: str, byte_range: str | None, status: int
) -> None:
    assert served.get(path, byte_range) == (status, b"")


def test_a_connection_serves_many_requests(served: Served) -> None:
    with closing(served.peer.http(served.server.port, [served.own.certificate])) as client:
        client.connect()
        first = client.sock
        for start in range(0, 50, 10):
            expected = CONTENT[start : start + 10]
            assert ask(client, FILE, f"bytes={start}-{start + 9}") == (206, expected)
            assert ask(client, PART) == (404, b"")
        assert client.sock is first


def test_other_methods_are_refused(served: Served) -> None:
    with closing(served.peer.http(served.server.port, [served.own.certificate])) as client:
        client.request("POST", FILE, b"x")
        assert client.getresponse().status == 501


def test_strangers_get_nothing(served: Served) -> None:
    assert served.is_refused(served.stranger)
    assert not served.is_refused(served.peer)
    with socket.create_connection(("127.0.0.1", served.server.port), 10.0) as plain:
        plain.sendall(b"GET " + FILE.encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard = b"".join(iter(lambda: received(plain), b""))
        assert CONTENT[:16] not in heard
        assert len(heard) < 64
    assert heard_without_certificate(served.server.port) == b""


def heard_without_certificate(port: int) -> bytes:
    """What is answered to one who shows none, and does not care who it talks to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10.0) as raw:
        try:
            with context.wrap_socket(raw) as secured:
                secured.sendall(b"GET " + FILE.encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return secured.recv(4096)
        except OSError:
            return b""


def received(connection: socket.socket) -> bytes:
    """What comes next; nothing once the other end is gone, however it went."""
    try:
        return connection.recv(4096)
    except ConnectionError:
        return b""


def test_one_who_is_accepted_no_more_is_cut_off(served: Served) -> None:
    server = served.server
    with closing(served.peer.http(server.port, [served.own.certificate])) as client:
        assert ask(client, FILE) == (200, CONTENT)
        server.accept([served.stranger.certificate])
        with pytest.raises(OSError, match=r"."):
            ask(client, FILE)
    assert served.is_refused(served.peer)
    assert not served.is_refused(served.stranger)
    server.accept([served.peer.certificate])
    assert not served.is_refused(served.peer)


def test_strangers_that_say_nothing_do_not_keep_others_out(served: Served) -> None:
    """More than so many from one address are not let wait."""
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", served.server.port), 10.0))
            for _ in range(MAX_UNKNOWN + 5)
        ]
        wait_until(
            lambda: sum(is_closed(one) for one in silent) == 5, "the last ones are sent away", 4.0
        )
    wait_until(lambda: not served.is_refused(served.peer), "there is room again")


def is_closed(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and received(connection) == b""


def test_a_silent_stranger_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HANDSHAKE_S", 0.2)
    with socket.create_connection(("127.0.0.1", served.server.port), 10.0) as silent:
        assert received(silent) == b""


def test_a_slow_reader_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering.Conversation, "timeout", 0.3)
    with served.peer.connect(served.server.port, [served.own.certificate]) as slow:
        # Ten times as much as the sockets' buffers hold.
        requests = f"GET {FILE} HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10
        slow.sendall(requests.encode())
        wait_until(lambda: not served.server._guests, "it is gone", 20.0)


def test_a_file_that_is_cut_meanwhile_ends_the_connection(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(CONTENT[:1000])
    served.shelf.put("cut.safetensors", path, (0, 1000))
    path.write_bytes(CONTENT[:10])
    name = path_of(Resource("org/tiny", "abc", "cut.safetensors"))
    with pytest.raises(Exception, match="IncompleteRead"):
        served.get(name)
    path.unlink()
    assert served.get(name) == (404, b"")


def test_a_port_that_is_taken_is_replaced_by_another(served: Served, tmp_path: Path) -> None:
    with closing(WeightServer(ShelfDouble(), served.own.files, served.server.port)) as other:
        assert other.port not in (0, served.server.port)


class ServerProcess:
    """`python -m tbcluster.weights.serving`."""

    def __init__(self, spec: ShareSpec) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tbcluster.weights.serving"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.say(encode_line(spec))
        assert self.process.stdout is not None
        self.report = decode_report(self.process.stdout.readline())

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)


def test_the_process_serves_those_it_is_told_of(served: Served, tmp_path: Path) -> None:
    running = ServerProcess(ShareSpec(str(tmp_path), served.own.files))
    assert isinstance(running.report, Bound)
    port = running.report.port
    ask_it = lambda: served.peer.get(port, [served.own.certificate], FILE)  # noqa: E731
    with pytest.raises(OSError, match=r"."):
        ask_it()
    running.say(b"nonsense\n")
    running.say(encode_line(Accepted((served.peer.certificate,))))

    def answers() -> bool:
        try:
            return ask_it() == (404, b"")
        except OSError:
            return False

    wait_until(answers, "the peer is answered")
    assert running.end() == 0


@pytest.mark.parametrize("word", [STOP_LINE, b""])
def test_the_process_ends_when_it_is_told_to(served: Served, tmp_path: Path, word: bytes) -> None:
    running = ServerProcess(ShareSpec(str(tmp_path), served.own.files))
    started = time.monotonic()
    if word:
        running.say(word)
        assert running.process.wait(20) == 0
    else:
        assert running.end() == 0
    assert time.monotonic() - started < 10


def test_a_certificate_that_is_missing_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.pem")
    running = ServerProcess(ShareSpec(str(tmp_path), (missing, missing)))
    assert isinstance(running.report, Failed)
    assert "certificate cannot be used" in running.report.message
    assert running.end() == 1
