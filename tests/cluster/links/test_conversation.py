"""What is measured over one connection."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tbcluster.cluster.links.conversation import GREET_S, Conversation
from tbcluster.cluster.links.echo import ANSWER, MAX_MESSAGE_BYTES, EchoServer
from tbcluster.transport.control import ControlServer
from tbcluster.transport.curve import Guard, new_keys
from tbcluster.wire.control import Route
from tbcluster.wire.tensors import Buffer

SERVER_KEYS, NODE_KEYS = new_keys(), new_keys()
MEASURE_S = 20.0


@pytest.fixture(scope="module")
def server() -> Iterator[EchoServer]:
    made = EchoServer(SERVER_KEYS, [NODE_KEYS.public])
    yield made
    made.close()


def talk_to(
    port: int,
    host: str = "127.0.0.1",
    *,
    server_key: str = SERVER_KEYS.public,
    timeout_s: float = MEASURE_S,
) -> Conversation:
    return Conversation(Route(f"tcp://{host}:{port}", server_key), NODE_KEYS, timeout_s=timeout_s)


@contextmanager
def hard_of_hearing(hears: Callable[[int], bool], token: bytes | None = None) -> Iterator[int]:
    """The port of a server that answers messages of such sizes and forgets the others; with
    always the same token, if one is given."""

    def run() -> None:
        while not ends.is_set():
            arrival = server.receive(0.05)
            if arrival is None or not hears(num_bytes(arrival.frames)):
                continue
            if bytes(arrival.frames[0]) == ANSWER:
                server.send(arrival.peer, [bytes(arrival.frames[1]) if token is None else token])

    ends = threading.Event()
    guard = Guard(SERVER_KEYS, lambda _: True)
    server = ControlServer("tcp://127.0.0.1:*", guard, max_message_bytes=MAX_MESSAGE_BYTES)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield server.port
    finally:
        ends.set()
        thread.join()
        server.close()


def num_bytes(frames: list[Buffer]) -> int:
    return sum(memoryview(frame).nbytes for frame in frames)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_good_path_is_measured_quickly(server: EchoServer, host: str) -> None:
    with talk_to(server.port, host) as conversation:
        assert conversation.greet()
        start = time.monotonic()
        round_trip_us = conversation.round_trip_us()
        small_gbps = conversation.small_gbps()
        large_gbps = conversation.large_gbps(small_gbps)
        taken_s = time.monotonic() - start
    assert round_trip_us is not None
    assert 10 < round_trip_us < 1e5
    assert small_gbps > 0.01
    assert large_gbps > 0.01
    # Load is put on the path for 0.15 s each; the rest is for a machine that is busy.
    assert taken_s < 5


def test_another_key_than_the_expected_one_is_no_answer(server: EchoServer) -> None:
    with talk_to(server.port, server_key=new_keys().public) as conversation:
        start = time.monotonic()
        assert not conversation.greet()
        assert GREET_S * 0.5 < time.monotonic() - start < GREET_S + 2


def test_a_path_that_lets_only_small_packets_through_has_no_throughput() -> None:
    with (
        hard_of_hearing(lambda size: size < 1000) as port,
        talk_to(port, timeout_s=2) as conversation,
    ):
        start = time.monotonic()
        assert conversation.greet()
        assert conversation.round_trip_us() is not None
        assert conversation.small_gbps() == 0
        assert conversation.large_gbps(1.0) == 0
        assert time.monotonic() - start < 4


def test_a_path_that_stalls_under_load_keeps_what_is_known() -> None:
    with (
        hard_of_hearing(lambda size: size < 100_000) as port,
        talk_to(port, timeout_s=2) as conversation,
    ):
        assert conversation.greet()
        assert conversation.small_gbps() > 0
        assert conversation.large_gbps(1.0) == 0


def test_a_silent_path_has_no_round_trip() -> None:
    with hard_of_hearing(lambda _: False) as port, talk_to(port) as conversation:
        assert not conversation.greet()
        assert conversation.round_trip_us() is None


def test_a_slow_path_is_loaded_with_less() -> None:
    sizes = []

    def hears(size: int) -> bool:
        sizes.append(size)
        return True

    with hard_of_hearing(hears) as port, talk_to(port) as conversation:
        assert conversation.greet()
        assert conversation.large_gbps(0.010) > 0
        assert max(sizes) < 1e6
        assert conversation.large_gbps(10.0) > 0
        assert max(sizes) > 8e6


@pytest.mark.parametrize("token", [b"", b"-1", b"9999", b"x", "\u0662".encode()])
def test_answers_to_other_questions_are_not_counted(token: bytes) -> None:
    with hard_of_hearing(lambda _: True, token) as port, talk_to(port, timeout_s=1) as conversation:
        assert conversation.small_gbps() == 0
        # Its time is up: no more questions.
        assert not conversation.greet()
        assert conversation.round_trip_us() is None
        assert conversation.large_gbps(1.0) == 0
