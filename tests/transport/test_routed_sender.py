"""A sender whose route changes while others send."""

import itertools
import os
import threading
from contextlib import closing

import pytest

from tbcluster.errors import StageError, TrustError
from tbcluster.transport.curve import Guard, new_keys
from tbcluster.transport.zeromq import RoutedSender, ZmqReceiver
from tbcluster.wire.control import Route
from tests.doubles.waiting import DEADLINE_S, wait_until

KEYS = new_keys()
CLIENT = new_keys()


class Target:
    """A receiver and the way to it."""

    def __init__(self, port: int | str = "*") -> None:
        self.asked: list[str] = []
        guard = Guard(KEYS, self._allows)
        self.receiver = ZmqReceiver(f"tcp://127.0.0.1:{port}", guard=guard)
        self.port = self.receiver.port
        self.route = Route(f"tcp://127.0.0.1:{self.port}", KEYS.public)

    def received(self) -> list[bytes]:
        message = self.receiver.receive(DEADLINE_S)
        assert message is not None, "no message came"
        return [bytes(frame) for frame in message]

    def close(self) -> None:
        self.receiver.close()

    def _allows(self, key: str) -> bool:
        self.asked.append(key)
        return True


def test_messages_go_where_the_last_route_says() -> None:
    with closing(Target()) as a, closing(Target()) as b, closing(RoutedSender(CLIENT)) as sender:
        for target in (a, b, a):
            sender.route(target.route)
            sender.send([b"hello", os.urandom(300_000)])
            assert target.received()[0] == b"hello"
        assert a.receiver.receive(0) is None
        assert b.receiver.receive(0) is None


def test_without_a_route_nothing_can_be_sent() -> None:
    sender = RoutedSender(CLIENT)
    with pytest.raises(StageError, match="route"):
        sender.send([b"where to?"])
    with closing(Target()) as target:
        sender.route(target.route)
        sender.close()
    with pytest.raises(StageError, match="route"):
        sender.send([b"where to?"])
    sender.close()


def test_the_same_route_again_is_a_new_connection() -> None:
    with closing(Target()) as target, closing(RoutedSender(CLIENT)) as sender:
        for count in (1, 2):
            sender.route(target.route)
            sender.send([b"hello"])
            target.received()
            wait_until(lambda count=count: len(target.asked) == count, "there was a handshake")


def test_another_process_on_the_same_port_is_reached() -> None:
    with closing(RoutedSender(CLIENT)) as sender:
        first = Target()
        sender.route(first.route)
        sender.send([b"first"])
        assert first.received() == [b"first"]
        first.close()
        with closing(Target(first.port)) as second:
            sender.route(second.route)
            sender.send([b"second"])
            assert second.received() == [b"second"]


def test_a_route_that_cannot_be_used_changes_nothing() -> None:
    with closing(Target()) as target, closing(RoutedSender(CLIENT)) as sender:
        sender.route(target.route)
        with pytest.raises(StageError, match="cannot connect"):
            sender.route(Route("tcp://nowhere", KEYS.public))
        with pytest.raises(TrustError, match="needs the server's key"):
            sender.route(Route("tcp://192.0.2.1:4711"))
        sender.send([b"still there"])
        assert target.received() == [b"still there"]


def test_what_is_sent_after_a_route_returned_arrives_there() -> None:
    """One thread routes, another sends all the time: from each return of `route` on, the target
    gets every message in order until the next route."""
    targets = [Target(), Target()]
    sender = RoutedSender(CLIENT)
    sender.route(targets[0].route)
    # Numbers of the next message, after which a route holds.
    numbers = itertools.count()
    sent = [0]
    is_over = threading.Event()
    failures: list[BaseException] = []

    def send() -> None:
        try:
            for number in numbers:
                if is_over.is_set():
                    return
                sender.send([b"%d" % number, bytes(number % 3 * 100_000)])
                sent[0] = number + 1
                # What is not received piles up; a stage waits for its turn as well.
                if number % 50 == 0:
                    is_over.wait(0.001)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        for index in range(1, 20):
            target = targets[index % 2]
            sender.route(target.route)
            # Begun before the route returned, perhaps; everything later must come.
            first_due = sent[0] + 1
            got = [int(target.received()[0])]
            while got[-1] < first_due + 20:
                got.append(int(target.received()[0]))
            newest = [number for number in got if number >= first_due]
            assert newest == list(range(first_due, first_due + len(newest)))
    finally:
        is_over.set()
        thread.join(DEADLINE_S)
        for end in (sender, *targets):
            end.close()
    assert not failures
