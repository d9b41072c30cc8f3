"""Who is answered, and what."""

from collections.abc import Iterator

import pytest

from tbcluster.cluster.links.echo import (
    ANSWER,
    MAX_MESSAGE_BYTES,
    MAX_TOKEN_BYTES,
    SWALLOW,
    EchoServer,
)
from tbcluster.transport.control import ControlClient
from tbcluster.transport.curve import new_keys
from tbcluster.wire.control import CurveKeys, Route
from tbcluster.wire.tensors import Buffer

DEADLINE_S = 20.0
# Long enough for an answer over loopback that should not come.
SILENCE_S = 0.5

SERVER_KEYS, NODE_KEYS, STRANGER_KEYS = new_keys(), new_keys(), new_keys()


@pytest.fixture
def server() -> Iterator[EchoServer]:
    made = EchoServer(SERVER_KEYS, [NODE_KEYS.public])
    yield made
    made.close()


@pytest.fixture(params=["127.0.0.1", "[::1]"])
def client(server: EchoServer, request: pytest.FixtureRequest) -> Iterator[ControlClient]:
    made = connect(server, NODE_KEYS, request.param)
    yield made
    made.close()


def connect(server: EchoServer, keys: CurveKeys, host: str = "127.0.0.1") -> ControlClient:
    route = Route(f"tcp://{host}:{server.port}", SERVER_KEYS.public)
    return ControlClient(route, keys, max_message_bytes=MAX_MESSAGE_BYTES)


def answer(client: ControlClient, timeout_s: float = DEADLINE_S) -> bytes | None:
    frames = client.receive(timeout_s)
    return None if frames is None else b"|".join(bytes(frame) for frame in frames)


def test_the_token_comes_back_without_the_load(client: ControlClient) -> None:
    client.send([ANSWER, b"1", b"load", bytes(100_000)])
    assert answer(client) == b"1"


def test_what_is_swallowed_is_read_before_the_next_answer(client: ControlClient) -> None:
    for _ in range(100):
        client.send([SWALLOW, b"no", bytes(8192)])
    client.send([ANSWER, b"all"])
    assert answer(client) == b"all"
    assert answer(client, 0) is None


@pytest.mark.parametrize(
    "message",
    [[b""], [ANSWER], [b"shout", b"1"], [ANSWER, bytes(MAX_TOKEN_BYTES + 1)], [bytes(4 << 20)] * 3],
    ids=["empty", "no token", "unknown", "long token", "too large"],
)
def test_other_messages_get_no_answer_and_do_no_harm(
    client: ControlClient, message: list[Buffer]
) -> None:
    client.send(message)
    client.send([ANSWER, b"after"])
    assert answer(client) == b"after"


def test_a_stranger_gets_nothing(server: EchoServer) -> None:
    stranger = connect(server, STRANGER_KEYS)
    stranger.send([ANSWER, b"1"])
    assert answer(stranger, SILENCE_S) is None
    stranger.close()


def test_the_allow_list_can_be_replaced(server: EchoServer) -> None:
    node = connect(server, NODE_KEYS)
    node.send([ANSWER, b"1"])
    assert answer(node) == b"1"
    server.allow([STRANGER_KEYS.public])
    stranger = connect(server, STRANGER_KEYS)
    stranger.send([ANSWER, b"2"])
    assert answer(stranger) == b"2"
    # Its connection still stands.
    node.send([ANSWER, b"3"])
    assert answer(node, SILENCE_S) is None
    stranger.close()
    node.close()


def test_two_servers_have_ports_of_their_own(server: EchoServer) -> None:
    other = EchoServer(new_keys())
    assert server.port != other.port
    other.close()
