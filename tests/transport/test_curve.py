"""Who gets in, and who does not: real sockets over tcp, IPv4 and IPv6."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import zmq

from tbcluster.errors import StageError, TrustError
from tbcluster.transport import sockets
from tbcluster.transport.curve import Guard, new_keys
from tbcluster.transport.doorkeeper import doorkeeper
from tbcluster.transport.trains import MARK
from tbcluster.transport.zeromq import ZmqReceiver, ZmqSender
from tbcluster.wire.control import CurveKeys, Route
from tests.doubles.waiting import DEADLINE_S, wait_until

# Longer than anything on loopback takes, for what must not come.
QUIET_S = 0.2


class Gate:
    """A guarded receiver, who may connect to it, and who tried."""

    def __init__(self, host: str, port: int | str = "*") -> None:
        self.host = host
        self.keys = new_keys()
        self.friend = new_keys()
        self.allowed = {self.friend.public}
        self.asked: list[str] = []
        self.receiver = ZmqReceiver(f"tcp://{host}:{port}", guard=Guard(self.keys, self._allows))

    @property
    def endpoint(self) -> str:
        return f"tcp://{self.host}:{self.receiver.port}"

    @property
    def address(self) -> tuple[str, int]:
        return self.host.strip("[]"), self.receiver.port

    def sender(self, keys: CurveKeys, server_key: str | None = None) -> ZmqSender:
        return ZmqSender(Route(self.endpoint, server_key or self.keys.public), keys=keys)

    def received(self, timeout_s: float = QUIET_S) -> list[bytes] | None:
        message = self.receiver.receive(timeout_s)
        return message and [bytes(frame) for frame in message]

    def check(self) -> None:
        """A friend's message arrives, and nothing else does."""
        with closing(self.sender(self.friend)) as sender:
            sender.send([b"from a friend"])
            assert self.received(DEADLINE_S) == [b"from a friend"]
        assert self.received() is None

    def _allows(self, key: str) -> bool:
        self.asked.append(key)
        return key in self.allowed


@pytest.fixture(params=["127.0.0.1", "[::1]"], ids=["ipv4", "ipv6"])
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    made = Gate(request.param)
    yield made
    made.receiver.close()


@contextmanager
def awaited(sender: ZmqSender, wanted: zmq.Event) -> Iterator[None]:
    """What happens in this block is expected to do this to the sender's connection."""
    monitor = sender._socket.get_monitor_socket(wanted)
    yield
    assert monitor.poll(DEADLINE_S * 1000), f"no {wanted.name}"
    sender._socket.disable_monitor()


def free_port() -> int:
    with closing(Gate("127.0.0.1").receiver) as receiver:
        return receiver.port


def test_keys_differ_and_the_secret_one_stays_out_of_texts() -> None:
    first, second = new_keys(), new_keys()
    assert len({first.public, first.secret, second.public, second.secret}) == 4
    assert all(len(key) == 40 for key in (first.public, first.secret))
    assert first.secret not in f"{first} {first!r} {Guard(first, bool)!r}"


def test_a_friend_gets_in(gate: Gate) -> None:
    gate.check()
    assert set(gate.asked) == {gate.friend.public}


def test_a_stranger_does_not(gate: Gate) -> None:
    stranger = new_keys()
    with closing(gate.sender(stranger)) as sender:
        sender.send([b"let me in"])
        wait_until(lambda: stranger.public in gate.asked, "the stranger was asked about")
        gate.check()


def test_who_is_allowed_later_gets_in_later(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_MS", 100)
    late = new_keys()
    with closing(gate.sender(late)) as sender:
        sender.send([b"at last"])
        wait_until(lambda: late.public in gate.asked, "it was asked about")
        assert gate.received(0) is None
        gate.allowed.add(late.public)
        assert gate.received(DEADLINE_S) == [b"at last"]


def test_nobody_talks_to_another_server(gate: Gate) -> None:
    with closing(gate.sender(gate.friend, server_key=new_keys().public)) as sender:
        with awaited(sender, zmq.Event.HANDSHAKE_FAILED_NO_DETAIL):
            sender.send([b"for someone else"])
        gate.check()


def test_a_revoked_key_does_not_get_in_again(gate: Gate) -> None:
    gate.check()
    gate.allowed.clear()
    gate.asked.clear()
    with closing(gate.sender(gate.friend)) as sender:
        sender.send([b"me again"])
        wait_until(lambda: gate.asked == [gate.friend.public], "it was asked about")
        assert gate.received() is None


def test_a_client_in_the_clear_does_not_get_in() -> None:
    port = free_port()
    with closing(ZmqSender(Route(f"tcp://127.0.0.1:{port}"))) as sender:
        sender.send([b"in the clear"])
        with awaited(sender, zmq.Event.HANDSHAKE_FAILED_PROTOCOL):
            gate = Gate("127.0.0.1", port)
        with closing(gate.receiver):
            gate.check()
            assert set(gate.asked) == {gate.friend.public}


def test_nothing_is_said_to_a_server_in_the_clear() -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with closing(ZmqSender(Route(endpoint, new_keys().public), keys=new_keys())) as sender:
        sender.send([b"secret"])
        with awaited(sender, zmq.Event.HANDSHAKE_FAILED_PROTOCOL):
            receiver = ZmqReceiver(endpoint)
        with closing(receiver):
            assert receiver.receive(QUIET_S) is None


def test_several_gates_do_not_share_their_lists() -> None:
    first, second = Gate("127.0.0.1"), Gate("127.0.0.1")
    with closing(first.receiver), closing(second.receiver):
        with closing(second.sender(first.friend)) as sender:
            sender.send([b"I am known next door"])
            wait_until(lambda: bool(second.asked), "it was asked about")
            second.check()
        first.check()
    assert first.friend.public not in first.asked[1:]


def test_a_guard_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate("127.0.0.1")

    def fail(key: str) -> bool:
        raise RuntimeError("the list is gone")

    failing = ZmqReceiver("tcp://127.0.0.1:*", guard=Guard(gate.keys, fail))
    route = Route(f"tcp://127.0.0.1:{failing.port}", gate.keys.public)
    with closing(gate.receiver), closing(failing), caplog.at_level(logging.ERROR):
        with closing(ZmqSender(route, keys=gate.friend)) as sender:
            sender.send([b"let me in"])
            wait_until(lambda: "the list is gone" in caplog.text, "it was logged")
            assert failing.receive(QUIET_S) is None
        # The thread that asked goes on.
        gate.check()


GREETING = b"\xff" + bytes(8) + b"\x7f"
GARBAGE = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "noise": os.urandom(4096),
    "zeros": bytes(4096),
    "ZMTP 1": b"\x01\x00\x06hello\x00",
    "ZMTP 2": GREETING + b"\x01\x08\x00\x00\x00\x05hello",
    "ZMTP 3, no mechanism": GREETING
    + b"\x03\x00"
    + b"NULL".ljust(20, b"\0")
    + bytes(32)
    + b"\x00\x05hello",
    "CURVE, and no handshake": GREETING
    + b"\x03\x00"
    + b"CURVE".ljust(20, b"\0")
    + bytes(32)
    + b"\x00\x05hello",
    "CURVE, a huge frame": GREETING
    + b"\x03\x00"
    + b"CURVE".ljust(20, b"\0")
    + bytes(32)
    + b"\x06"
    + b"\x7f" * 8,
    "CURVE, a hello of zeros": GREETING
    + b"\x03\x00"
    + b"CURVE".ljust(20, b"\0")
    + bytes(32)
    + b"\x04\xc8\x05HELLO"
    + bytes(194),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_what_is_no_handshake_changes_nothing(gate: Gate, what: str) -> None:
    with socket.create_connection(gate.address, timeout=DEADLINE_S) as raw:
        raw.sendall(GARBAGE[what])
        gate.check()
    gate.check()
    assert set(gate.asked) == {gate.friend.public}


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_MS", 100)
    gate = Gate("127.0.0.1")
    with closing(gate.receiver), socket.create_connection(gate.address, DEADLINE_S) as raw:
        while raw.recv(4096):
            continue


def test_a_crowd_of_connections_keeps_no_friend_out() -> None:
    gate = Gate("127.0.0.1")
    crowd = []
    with closing(gate.receiver):
        for _ in range(100):
            crowd.append(socket.create_connection(gate.address, DEADLINE_S))
            crowd[-1].sendall(GREETING)
        gate.check()
        for raw in crowd:
            raw.close()
        gate.check()


def test_a_member_that_sends_no_train_is_not_listened_to(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate("127.0.0.1")
    with closing(gate.receiver), caplog.at_level(logging.WARNING):
        # The same connection, without the cutting.
        with closing(gate.sender(gate.friend)) as sender:
            for _ in range(30):
                sender._socket.send_multipart([MARK + bytes(8), b"not empty"])
            sender.send([b"then a good one"])
            assert gate.received(DEADLINE_S) == [b"then a good one"]
            assert len(caplog.records) == 2
            # A frame past the limit ends the connection, which is made anew.
            with awaited(sender, zmq.Event.DISCONNECTED):
                sender._socket.send(bytes(10_000_000))
        gate.check()


def test_many_messages_of_all_sizes_come_in_order(gate: Gate) -> None:
    sizes = [0, 1, 1000, 65_535, 131_072, 131_073, 300_000, 1_000_001]
    sent = [[b"%d" % i, os.urandom(sizes[i % len(sizes)])] for i in range(120)]

    def send() -> None:
        for message in sent:
            sender.send(message)

    with closing(gate.sender(gate.friend)) as sender:
        thread = threading.Thread(target=send)
        thread.start()
        got = [gate.received(DEADLINE_S) for _ in sent]
        thread.join()
    assert got == sent


OPEN_ENDPOINTS = ["tcp://*:*", "tcp://0.0.0.0:*", "tcp://[::]:*", "tcp://192.0.2.1:4711"]


@pytest.mark.parametrize("endpoint", OPEN_ENDPOINTS)
def test_nothing_leaves_the_machine_in_the_clear(endpoint: str) -> None:
    with pytest.raises(TrustError, match="needs a guard"):
        ZmqReceiver(endpoint)
    with pytest.raises(TrustError, match="needs the server's key"):
        ZmqSender(Route(endpoint.replace("*", "4711")))


BAD_KEYS = {"short": "abc", "not Z85": "~" * 40, "empty": "", "not ASCII": "ü" * 40}


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_bad_key_is_a_trust_error_that_shows_no_secret(bad: str) -> None:
    good, server = new_keys(), new_keys().public
    endpoint = "tcp://127.0.0.1:4711"
    with pytest.raises(TrustError, match="secret key is not"):
        ZmqReceiver("tcp://127.0.0.1:*", guard=Guard(CurveKeys(good.public, bad), bool))
    with pytest.raises(TrustError, match="server's"):
        ZmqSender(Route(endpoint, bad), keys=good)
    with pytest.raises(TrustError, match="public key is not"):
        ZmqSender(Route(endpoint, server), keys=CurveKeys(bad, good.secret))
    with pytest.raises(TrustError) as caught:
        ZmqSender(Route(endpoint, server), keys=CurveKeys(good.public, bad))
    assert not bad or bad not in str(caught.value)
    with pytest.raises(TrustError, match="needs keys"):
        ZmqSender(Route(endpoint, server))


def test_a_port_in_use_is_a_stage_error_that_names_it() -> None:
    gate = Gate("127.0.0.1")
    with closing(gate.receiver), pytest.raises(StageError, match=f"{gate.receiver.port}.* in use"):
        ZmqReceiver(gate.endpoint, guard=Guard(gate.keys, bool))


def test_what_is_closed_leaves_nothing_behind() -> None:
    keeper = doorkeeper(zmq.Context.instance())
    before = dict(keeper._guards)
    gate = Gate("127.0.0.1")
    assert len(keeper._guards) == len(before) + 1
    with pytest.raises(StageError, match="in use"):
        ZmqReceiver(gate.endpoint, guard=Guard(gate.keys, bool))
    gate.receiver.close()
    gate.receiver.close()
    assert keeper._guards == before


def test_a_context_ends_with_its_sockets() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    keys = new_keys()
    receiver = ZmqReceiver("tcp://127.0.0.1:*", context, guard=Guard(keys, bool))
    route = Route(f"tcp://127.0.0.1:{receiver.port}", keys.public)
    sender = ZmqSender(route, context, keys=keys)
    sender.send([b"hello"])
    assert receiver.receive(DEADLINE_S) is not None
    sender.close()
    receiver.close()
    ending = threading.Thread(target=context.term, daemon=True)
    ending.start()
    ending.join(DEADLINE_S)
    assert not ending.is_alive()
