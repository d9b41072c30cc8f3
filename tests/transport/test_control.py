"""The control plane's server and clients, over real sockets."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tbcluster.errors import RackError, TrustError
from tbcluster.transport import sockets
from tbcluster.transport.control import (
    MAX_DROPS_AT_ONCE,
    MAX_FRAMES,
    Arrival,
    ControlClient,
    ControlServer,
)
from tbcluster.transport.curve import Guard, new_keys
from tbcluster.wire.control import CurveKeys, Route
from tests.doubles.waiting import DEADLINE_S, wait_until

MAX_BYTES = 10_000
QUIET_S = 0.2


class Post:
    """A server, the keys that it allows, and clients of it."""

    def __init__(self, host: str = "127.0.0.1", port: int | str = "*") -> None:
        self.host = host
        self.keys = new_keys()
        self.friends = [new_keys(), new_keys()]
        self.allowed = {keys.public for keys in self.friends}
        self.asked: list[str] = []
        self._clients: list[ControlClient] = []
        self.server = self.bind(port)

    def bind(self, port: int | str) -> ControlServer:
        guard = Guard(self.keys, self._allows)
        return ControlServer(f"tcp://{self.host}:{port}", guard, max_message_bytes=MAX_BYTES)

    def client(self, keys: CurveKeys | None = None, server_key: str | None = None) -> ControlClient:
        endpoint = f"tcp://{self.host}:{self.server.port}"
        route = Route(endpoint, server_key or self.keys.public)
        client = ControlClient(route, keys or self.friends[0], max_message_bytes=MAX_BYTES)
        self._clients.append(client)
        return client

    def arrival(self, timeout_s: float = DEADLINE_S) -> Arrival:
        arrival = self.server.receive(timeout_s)
        assert arrival is not None, "nothing came"
        return arrival

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.server.close()

    def _allows(self, key: str) -> bool:
        self.asked.append(key)
        return key in self.allowed


@pytest.fixture
def post() -> Iterator[Post]:
    made = Post()
    yield made
    made.close()


def text(frames) -> list[bytes]:
    return [bytes(frame) for frame in frames]


def answer(client: ControlClient) -> list[bytes]:
    message = client.receive(DEADLINE_S)
    assert message is not None, "no answer came"
    return text(message)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_questions_and_answers(host: str) -> None:
    with closing(Post(host)) as post:
        client = post.client()
        assert client.send([b"question", b"", b"2"])
        arrival = post.arrival()
        assert arrival.key == post.friends[0].public
        assert text(arrival.frames) == [b"question", b"", b"2"]
        assert post.server.send(arrival.peer, [b"answer", b""])
        assert answer(client) == [b"answer", b""]


def test_a_server_for_all_interfaces_answers_both_protocols() -> None:
    with closing(Post("[::]")) as post:
        for host in ("127.0.0.1", "[::1]"):
            post.host = host
            client = post.client()
            client.send([host.encode()])
            arrival = post.arrival()
            assert text(arrival.frames) == [host.encode()]
            post.server.send(arrival.peer, [b"hello"])
            assert answer(client) == [b"hello"]


def test_a_sender_is_known_by_its_key_whatever_it_says(post: Post) -> None:
    first, second = (post.client(keys) for keys in post.friends)
    first.send([post.friends[1].public.encode()])
    arrival = post.arrival()
    assert arrival.key == post.friends[0].public
    second.send([b"I am the second"])
    other = post.arrival()
    assert (other.key, other.peer != arrival.peer) == (post.friends[1].public, True)
    # Each answer goes to its own.
    post.server.send(other.peer, [b"for the second"])
    post.server.send(arrival.peer, [b"for the first"])
    assert answer(first) == [b"for the first"]
    assert answer(second) == [b"for the second"]


def test_two_connections_of_one_key_are_two_peers(post: Post) -> None:
    first, second = post.client(), post.client()
    first.send([b"one"])
    one = post.arrival()
    second.send([b"two"])
    two = post.arrival()
    assert one.key == two.key
    assert one.peer != two.peer


def test_a_stranger_and_a_wrong_server_key_get_nothing(post: Post) -> None:
    stranger = new_keys()
    lost = post.client(server_key=new_keys().public)
    unknown = post.client(stranger)
    unknown.send([b"let me in"])
    lost.send([b"for someone else"])
    wait_until(lambda: stranger.public in post.asked, "the stranger was asked about")
    post.client().send([b"hello"])
    assert text(post.arrival().frames) == [b"hello"]
    assert post.server.receive(QUIET_S) is None
    assert unknown.receive(0) is None
    assert lost.receive(0) is None


def test_who_is_revoked_is_not_heard_any_more(post: Post) -> None:
    revoked, other = (post.client(keys) for keys in post.friends)
    revoked.send([b"still a member"])
    peer = post.arrival().peer
    post.allowed.discard(post.friends[0].public)
    # The connection stands: what comes over it is dropped, and it can be told why.
    revoked.send([b"not any more"])
    revoked.send([b"nor this"])
    assert post.server.receive(QUIET_S) is None
    other.send([b"hello"])
    assert post.arrival().key == post.friends[1].public
    assert post.server.send(peer, [b"you are revoked"])
    assert answer(revoked) == [b"you are revoked"]


def test_who_is_revoked_cannot_hold_up_those_who_wait(post: Post) -> None:
    revoked, other = (post.client(keys) for keys in post.friends)
    revoked.send([b"hello"])
    post.arrival()
    for _ in range(9 * MAX_DROPS_AT_ONCE):
        revoked.send([b"nonsense"])
    wait_until(lambda: bool(post.server.receive(0)), "they have begun to come")
    post.allowed.discard(post.friends[0].public)
    post.asked.clear()
    assert post.server.receive(0) is None
    assert len(post.asked) <= MAX_DROPS_AT_ONCE
    other.send([b"hello"])
    assert post.arrival().key == post.friends[1].public


def test_what_is_looked_at_and_dropped_does_not_prolong_the_wait(post: Post) -> None:
    post.client().send([b"hello"])
    give_up = time.monotonic() + DEADLINE_S
    looks: list[float] = []

    def look() -> None:
        looks.append(time.monotonic())
        assert looks[-1] < give_up, "it looks for ever"

    wait_until(lambda: post.server._end.socket.poll(0) != 0, "a message is there")
    assert post.server._end.receive(look, 0.05) is None
    assert len(looks) > 1


def test_messages_come_in_order_both_ways(post: Post) -> None:
    client = post.client()
    sent = [b"%d" % number for number in range(500)]
    for message in sent:
        assert client.send([message])
    arrivals = [post.arrival() for _ in sent]
    assert [bytes(arrival.frames[0]) for arrival in arrivals] == sent
    for message in sent:
        assert post.server.send(arrivals[0].peer, [message])
    assert [answer(client)[0] for _ in sent] == sent


def test_who_is_gone_gets_nothing_and_comes_back_as_another_peer(post: Post) -> None:
    assert not post.server.send(b"nobody", [b"hello"])
    client = post.client()
    client.send([b"hello"])
    old = post.arrival().peer
    client.close()
    wait_until(lambda: not post.server.send(old, [b"still there?"]), "the client is gone")
    again = post.client()
    again.send([b"back"])
    assert post.arrival().peer != old
    assert not post.server.send(old, [b"still there?"])


def test_what_was_sent_last_is_delivered_within_the_time_for_it(post: Post) -> None:
    client = post.client()
    client.send([b"hello"])
    peer = post.arrival().peer
    num_messages = 800
    for _ in range(num_messages):
        assert post.server.send(peer, [bytes(MAX_BYTES)])
    post.server.close(linger_s=DEADLINE_S)
    for _ in range(num_messages):
        assert answer(client) == [bytes(MAX_BYTES)]


def test_a_server_that_comes_back_is_found_again(post: Post) -> None:
    client = post.client()
    client.send([b"first"])
    peer, port = post.arrival().peer, post.server.port
    post.server.close()
    post.server = post.bind(port)
    give_up = time.monotonic() + DEADLINE_S
    arrival = None
    # What was under way is lost, so one message may not do.
    while arrival is None and time.monotonic() < give_up:
        client.send([b"second"])
        arrival = post.server.receive(0.1)
    assert arrival is not None
    assert not post.server.send(peer, [b"for the old connection"])
    assert post.server.send(arrival.peer, [b"welcome"])
    assert answer(client) == [b"welcome"]


def test_a_message_of_the_largest_size_arrives_and_no_larger_one(post: Post) -> None:
    client = post.client()
    half = bytes(MAX_BYTES // 2)
    for frames in ([bytes(MAX_BYTES)], [half, half], [b""] * MAX_FRAMES):
        client.send(frames)
        arrival = post.arrival()
        assert text(arrival.frames) == frames
    for frames in ([bytes(MAX_BYTES + 1)], [half, half, b"1"], [b""] * (MAX_FRAMES + 1)):
        client.send(frames)
    client.send([b"last"])
    last = post.arrival()
    assert text(last.frames) == [b"last"]
    assert last.peer == arrival.peer
    post.server.send(last.peer, [half, half, b"1"])
    post.server.send(last.peer, [b"answer"])
    assert answer(client) == [b"answer"]


def test_a_frame_far_too_large_ends_the_connection(post: Post) -> None:
    client, other = (post.client(keys) for keys in post.friends)
    client.send([b"hello"])
    peer = post.arrival().peer
    client.send([bytes(10 * MAX_BYTES)])
    wait_until(lambda: not post.server.send(peer, [b"?"]), "the connection is closed")
    other.send([b"hello"])
    assert post.arrival().key == post.friends[1].public


def test_nothing_waits_for_a_slow_peer(post: Post) -> None:
    client = post.client()
    client.send([b"hello"])
    peer = post.arrival().peer
    # The client does not read: at some point nothing more fits, and that is said at once.
    tries = (post.server.send(peer, [bytes(MAX_BYTES)]) for _ in range(100_000))
    assert not all(tries)


def test_a_client_does_not_wait_for_its_server() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        route = Route(f"tcp://127.0.0.1:{silent.getsockname()[1]}", new_keys().public)
        with closing(ControlClient(route, new_keys(), max_message_bytes=MAX_BYTES)) as client:
            while client.send([b"anyone?"]):
                continue
            assert client.receive(0.01) is None


FROZEN = """
import sys
from tbcluster.transport.control import ControlClient
from tbcluster.wire.control import CurveKeys, Route
endpoint, server_key, public, secret = sys.argv[1:]
client = ControlClient(Route(endpoint, server_key), CurveKeys(public, secret), max_message_bytes=99)
client.send([b"hello"])
client.receive(None)
"""


def test_a_peer_that_says_nothing_any_more_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HEARTBEAT_MS", 100)
    monkeypatch.setattr(sockets, "HEARTBEAT_TIMEOUT_MS", 300)
    with closing(Post()) as post:
        keys = post.friends[0]
        endpoint = f"tcp://127.0.0.1:{post.server.port}"
        arguments = [endpoint, post.keys.public, keys.public, keys.secret]
        process = subprocess.Popen([sys.executable, "-c", FROZEN, *arguments])
        try:
            peer = post.arrival().peer
            # As a machine whose cable is pulled: its connection ends in no way that TCP tells of.
            process.send_signal(signal.SIGSTOP)
            wait_until(lambda: not post.server.send(peer, [b"?"]), "it is gone")
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("which", ["server", "client"])
def test_a_wake_ends_the_wait_and_closing_is_safe(post: Post, which: str) -> None:
    end = post.server if which == "server" else post.client()
    is_ending = threading.Event()
    got: list[object] = []

    def own() -> None:
        while not is_ending.is_set():
            got.append(end.receive(None))
        end.close()

    owner = threading.Thread(target=own)
    owner.start()
    end.wake()
    wait_until(lambda: len(got) > 0, "the wait ended")
    is_ending.set()
    end.wake()
    owner.join(DEADLINE_S)
    assert not owner.is_alive()
    assert set(got) == {None}
    end.wake()
    end.close()


def test_an_early_wake_loses_no_message(post: Post) -> None:
    client = post.client()
    client.send([b"hello"])
    peer = post.arrival().peer
    for end, frames in ((post.server, [b"to the server"]), (client, [b"to the client"])):
        end.wake()
        assert end.receive(DEADLINE_S) is None
        if end is client:
            post.server.send(peer, frames)
        else:
            client.send(frames)
        message = end.receive(DEADLINE_S)
        assert message is not None
        got = message.frames if isinstance(message, Arrival) else message
        assert text(got) == frames


def test_a_new_connection_does_not_end_the_wait(post: Post) -> None:
    # Its credentials make the socket readable before there is a message.
    began = time.monotonic()
    post.client()
    assert post.server.receive(QUIET_S) is None
    assert time.monotonic() - began > QUIET_S * 0.9
    assert post.asked


def test_impossible_endpoints_and_keys(post: Post) -> None:
    guard = Guard(post.keys, bool)
    with pytest.raises(RackError, match="cannot bind"):
        ControlServer(f"tcp://127.0.0.1:{post.server.port}", guard, max_message_bytes=1)
    keys = post.friends[0]
    with pytest.raises(RackError, match="cannot connect"):
        ControlClient(Route("tcp://nowhere", post.keys.public), keys, max_message_bytes=1)
    with pytest.raises(TrustError, match="needs the server's key"):
        ControlClient(Route("tcp://127.0.0.1:1"), keys, max_message_bytes=1)
    with pytest.raises(TrustError, match="secret key"):
        ControlServer("tcp://*:*", Guard(CurveKeys("", ""), bool), max_message_bytes=1)
