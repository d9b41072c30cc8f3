"""The law of a channel: over ZeroMQ, in the clear and encrypted, and for its in-memory twin."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tbcluster.errors import StageError
from tbcluster.transport.channel import Receiver, Sender
from tbcluster.transport.curve import Guard, new_keys
from tbcluster.transport.memory import MemoryChannel
from tbcluster.transport.trains import MARK, MAX_PART_BYTES
from tbcluster.transport.zeromq import ZERO_COPY_BYTES, ZmqReceiver, ZmqSender
from tbcluster.wire.control import Route
from tbcluster.wire.tensors import Buffer

DEADLINE_S = 20.0
LARGE_BYTES = 8 * 1024 * 1024


class Endpoint(Protocol):
    """One place where a receiver is bound, perhaps again, and senders connect."""

    def bind(self) -> Receiver: ...

    def connect(self) -> Sender: ...

    def close(self) -> None: ...


class MemoryEndpoint:
    def __init__(self) -> None:
        self._channel = MemoryChannel()

    def bind(self) -> Receiver:
        return self._channel

    def connect(self) -> Sender:
        return self._channel

    def close(self) -> None:
        self._channel.close()


class ZmqEndpoint:
    def __init__(self) -> None:
        # Not pytest's tmp_path: a Unix socket's path may have about 100 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="tb", dir="/tmp"))
        self._address = f"ipc://{self._folder}/c"
        self._opened: list[Receiver | Sender] = []

    def bind(self) -> Receiver:
        receiver = ZmqReceiver(self._address)
        self._opened.append(receiver)
        return receiver

    def connect(self) -> Sender:
        sender = ZmqSender(Route(self._address))
        self._opened.append(sender)
        return sender

    def close(self) -> None:
        for end in self._opened:
            end.close()
        shutil.rmtree(self._folder)


class CurveEndpoint:
    """Over tcp to any address of this machine, encrypted."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self._server, self._client = new_keys(), new_keys()
        self._guard = Guard(self._server, lambda key: key == self._client.public)
        self._opened: list[Receiver | Sender] = []
        # A port that is free now: what connects may come before what binds.
        first = self._bind("*")
        self._port = first.port
        first.close()

    def bind(self) -> Receiver:
        receiver = self._bind(self._port)
        self._opened.append(receiver)
        return receiver

    def connect(self) -> Sender:
        route = Route(f"tcp://{self.host}:{self._port}", self._server.public)
        sender = ZmqSender(route, keys=self._client)
        self._opened.append(sender)
        return sender

    def close(self) -> None:
        for end in self._opened:
            end.close()

    def _bind(self, port: int | str) -> ZmqReceiver:
        return ZmqReceiver(f"tcp://[::]:{port}", guard=self._guard)


class CurveEndpoint6(CurveEndpoint):
    host = "[::1]"


@pytest.fixture(
    params=[MemoryEndpoint, ZmqEndpoint, CurveEndpoint, CurveEndpoint6],
    ids=["memory", "ipc", "curve", "curve-ipv6"],
)
def endpoint(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    made: Endpoint = request.param()
    yield made
    made.close()


def receive(receiver: Receiver) -> list[bytes]:
    """The next message, as bytes; fails when none comes for long."""
    message = receiver.receive(DEADLINE_S)
    assert message is not None, "no message came"
    return [bytes(frame) for frame in message]


def test_messages_come_in_order_and_whole(endpoint: Endpoint) -> None:
    receiver, sender = endpoint.bind(), endpoint.connect()
    sent = [[b"%d" % i, *([b"frame"] * (i % 3))] for i in range(200)]
    for message in sent:
        sender.send(message)
    assert [receive(receiver) for _ in sent] == sent
    assert receiver.receive(0) is None


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_large_buffers_between_small_ones(endpoint: Endpoint, wrap: type) -> None:
    receiver, sender = endpoint.bind(), endpoint.connect()
    first, second = os.urandom(LARGE_BYTES), os.urandom(LARGE_BYTES)
    # The sender passes on what is at the limit and above without a copy.
    edge = os.urandom(ZERO_COPY_BYTES)
    sent = [b"header", first, b"", edge[1:], second, edge]
    sender.send([wrap(frame) for frame in sent])
    sender.send([b"next"])
    assert receive(receiver) == sent
    assert receive(receiver) == [b"next"]


def test_empty_frames_are_kept(endpoint: Endpoint) -> None:
    receiver, sender = endpoint.bind(), endpoint.connect()
    sender.send([b"", b"", b"x", b""])
    assert receive(receiver) == [b"", b"", b"x", b""]


def test_a_message_may_begin_as_a_train_does(endpoint: Endpoint) -> None:
    receiver, sender = endpoint.bind(), endpoint.connect()
    sent = [MARK + b"no train", b"x" * (MAX_PART_BYTES + 1), MARK]
    sender.send(sent)
    assert receive(receiver) == sent


def test_two_senders_share_a_receiver(endpoint: Endpoint) -> None:
    receiver = endpoint.bind()
    for name in (b"a", b"b"):
        sender = endpoint.connect()
        for i in range(20):
            sender.send([name, b"%d" % i])
    got = [receive(receiver) for _ in range(40)]
    for name in (b"a", b"b"):
        assert [index for who, index in got if who == name] == [b"%d" % i for i in range(20)]


def test_the_time_is_up(endpoint: Endpoint) -> None:
    receiver = endpoint.bind()
    assert receiver.receive(0) is None
    began = time.monotonic()
    assert receiver.receive(0.05) is None
    # ZeroMQ counts whole milliseconds.
    assert 0.045 < time.monotonic() - began < DEADLINE_S


def test_a_wake_ends_the_wait(endpoint: Endpoint) -> None:
    receiver = endpoint.bind()
    got: list[list[Buffer] | None] = []
    waiting = threading.Thread(target=lambda: got.append(receiver.receive(None)))
    waiting.start()
    # Before or during the wait: either must end it, so there is nothing to wait for here.
    receiver.wake()
    waiting.join(DEADLINE_S)
    assert not waiting.is_alive()
    assert got == [None]


def test_a_message_ends_the_wait(endpoint: Endpoint) -> None:
    receiver, sender = endpoint.bind(), endpoint.connect()
    got: list[list[bytes]] = []
    waiting = threading.Thread(target=lambda: got.append(receive(receiver)))
    waiting.start()
    sender.send([b"hello"])
    waiting.join(2 * DEADLINE_S)
    assert got == [[b"hello"]]


def test_an_early_wake_ends_the_next_wait_only(endpoint: Endpoint) -> None:
    receiver, sender = endpoint.bind(), endpoint.connect()
    receiver.wake()
    assert receiver.receive(None) is None
    sender.send([b"later"])
    assert receive(receiver) == [b"later"]


def test_a_wake_loses_no_message(endpoint: Endpoint) -> None:
    receiver = endpoint.bind()
    sent = [b"%d" % i for i in range(300)]

    def send_and_wake() -> None:
        sender = endpoint.connect()
        for message in sent:
            sender.send([message])
            receiver.wake()

    other = threading.Thread(target=send_and_wake)
    other.start()
    got: list[bytes] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(got) < len(sent) and time.monotonic() < deadline:
        message = receiver.receive(0.1)
        got += [bytes(message[0])] if message else []
    other.join(DEADLINE_S)
    assert got == sent


def test_many_wakes_never_block(endpoint: Endpoint) -> None:
    receiver = endpoint.bind()
    # More than a pipe holds.
    for _ in range(70_000):
        receiver.wake()
    assert receiver.receive(DEADLINE_S) is None


def test_what_is_sent_before_the_receiver_is_bound_arrives(endpoint: Endpoint) -> None:
    sender = endpoint.connect()
    sender.send([b"early", b"x" * ZERO_COPY_BYTES])
    sender.send([b"second"])
    receiver = endpoint.bind()
    assert receive(receiver) == [b"early", b"x" * ZERO_COPY_BYTES]
    assert receive(receiver) == [b"second"]


def test_a_receiver_bound_again_gets_later_messages(endpoint: Endpoint) -> None:
    sender = endpoint.connect()
    number = 0
    for _ in range(3):
        receiver = endpoint.bind()
        deadline = time.monotonic() + DEADLINE_S
        first, message = number, None
        # What was under way when the last receiver closed is lost, so one message may not do.
        while message is None or int(bytes(message[0])) < first:
            assert time.monotonic() < deadline, "nothing arrives any more"
            sender.send([b"%d" % number])
            number += 1
            message = receiver.receive(0.05)
        receiver.close()


def test_a_wake_after_closing_is_nothing(endpoint: Endpoint) -> None:
    receiver = endpoint.bind()
    receiver.close()
    receiver.wake()
    receiver.close()


IMPOSSIBLE = {
    "no scheme": "nonsense",
    "unknown scheme": "pigeon://here",
    "no path": "ipc://",
    "path too long": "ipc:///tmp/" + "x" * 200,
    "empty": "",
}


@pytest.mark.parametrize("address", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_an_impossible_endpoint_is_a_stage_error(address: str) -> None:
    with pytest.raises(StageError, match="cannot bind"):
        ZmqReceiver(address)
    with pytest.raises(StageError, match="cannot connect"):
        ZmqSender(Route(address))


def test_an_endpoint_in_a_missing_folder_is_a_stage_error(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="cannot bind"):
        ZmqReceiver(f"ipc://{tmp_path.anchor}no-such-folder/c")
