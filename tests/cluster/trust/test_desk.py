"""Strangers at the join port, over real sockets: they get nothing and change nothing."""

import logging
import os
import socket
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

import msgspec
import pytest
import zmq

from tbcluster.cluster.trust.desk import MAX_JOIN_BYTES
from tbcluster.cluster.trust.refusals import MAX_REFUSALS
from tbcluster.transport.control import ControlClient
from tbcluster.transport.curve import new_keys
from tbcluster.wire.control import CurveKeys, Route
from tbcluster.wire.rack import (
    RACK_PROTOCOL,
    AgentBeat,
    JoinAnswer,
    Joined,
    JoinRequest,
    Refused,
    decode_join_answer,
    encode_message,
)
from tests.doubles.trusted import TrustedHead, listens
from tests.doubles.waiting import wait_until

VERSION = version("tbcluster")
ANSWER_S = 20.0
# What stays silent is waited for so long: an answer takes milliseconds.
SILENCE_S = 0.5


@pytest.fixture
def head(tmp_path: Path) -> TrustedHead:
    return TrustedHead(tmp_path / "head")


def request(secret: str, name: str = "mini", **changes: object) -> bytes:
    fields: dict[str, object] = {"protocol": RACK_PROTOCOL, "tbcluster_version": VERSION}
    return encode_message(JoinRequest(secret=secret, name=name, **{**fields, **changes}))  # type: ignore[arg-type]


def say(
    head: TrustedHead,
    *messages: list[bytes],
    keys: CurveKeys | None = None,
    server_key: str | None = None,
    wait_s: float = ANSWER_S,
) -> JoinAnswer | None:
    """The answer to the last message, on a connection of its own."""
    route = Route(f"tcp://127.0.0.1:{head.join_port}", server_key or head.head.keys.public)
    client = ControlClient(route, keys or new_keys(), max_message_bytes=MAX_JOIN_BYTES)
    with closing(client):
        for message in messages:
            client.send(message)
        frames = client.receive(wait_s)
    return None if frames is None else decode_join_answer(frames[0])


def content(head: TrustedHead) -> bytes:
    return (head.folder.path / "members.json").read_bytes()


def test_the_holder_of_a_token_is_admitted_once(head: TrustedHead) -> None:
    token, keys = head.invite(), new_keys()
    with head.desk():
        answer = say(head, [request(token.secret)], keys=keys)
        assert answer == Joined(head.head.cluster_id, "rack", "mini")
        before = content(head)
        # Its answer was lost: it asks again, and gets the same.
        assert say(head, [request(token.secret, "other")], keys=keys) == answer
        stranger = say(head, [request(token.secret)])
        assert isinstance(stranger, Refused)
        assert "another machine already" in stranger.reason
        assert content(head) == before
    (_, member) = head.members.nodes()
    assert member.public_key == keys.public


def test_the_port_is_open_while_someone_is_awaited(head: TrustedHead) -> None:
    with head.desk():
        assert not listens(head.join_port)
        head.invite()
        wait_until(lambda: listens(head.join_port), "it opens")
        head.members.cancel_invitations()
        wait_until(lambda: not listens(head.join_port), "it closes")


def test_strangers_change_nothing(head: TrustedHead) -> None:
    token = head.invite()
    before = content(head)
    with head.desk():
        refused = say(head, [request("x" * 22)])
        assert isinstance(refused, Refused)
        assert "does not know this token" in refused.reason
        # What is no request gets no answer, and the desk goes on.
        beat = encode_message(AgentBeat(time=0.0))
        wrong_type = encode_message(
            JoinRequest(secret=3, name="a", protocol=1, tbcluster_version="")
        )  # type: ignore[arg-type]
        for garbage in ([b""], [os.urandom(500)], [beat], [b"\x91" * 1500], [wrong_type]):
            assert say(head, garbage, wait_s=SILENCE_S) is None
        two_frames = [request(token.secret), b""]
        assert say(head, two_frames, wait_s=SILENCE_S) is None
        fields = msgspec.msgpack.decode(request(token.secret))
        too_long = msgspec.msgpack.encode({**fields, "more": "x" * MAX_JOIN_BYTES})
        assert say(head, [too_long], wait_s=SILENCE_S) is None
        assert content(head) == before
        assert isinstance(say(head, [request(token.secret)]), Joined)


def test_a_wrong_server_key_reaches_nobody(head: TrustedHead) -> None:
    token = head.invite()
    before = content(head)
    with head.desk():
        wrong = new_keys().public
        assert say(head, [request(token.secret)], server_key=wrong, wait_s=SILENCE_S) is None
        assert content(head) == before


def test_connections_in_the_clear_get_nothing(head: TrustedHead) -> None:
    token = head.invite()
    before = content(head)
    with head.desk():
        with zmq.Context.instance().socket(zmq.DEALER) as plain:
            plain.set(zmq.LINGER, 0)
            plain.connect(f"tcp://127.0.0.1:{head.join_port}")
            with suppress(zmq.Again):  # refused already: it takes nothing more
                plain.send(request(token.secret), zmq.DONTWAIT)
            assert plain.poll(SILENCE_S * 1000) == 0
        for text in (b"GET / HTTP/1.1\r\n\r\n", request(token.secret), os.urandom(4096)):
            with socket.create_connection(("127.0.0.1", head.join_port)) as connection:
                connection.sendall(text)
                connection.settimeout(SILENCE_S)
                try:
                    answer = connection.recv(4096)
                except (TimeoutError, ConnectionResetError):
                    answer = b""
                # libzmq's greeting at most: who it is, and that it wants CURVE.
                assert len(answer) <= 64
        assert content(head) == before
        assert isinstance(say(head, [request(token.secret)]), Joined)


def test_another_version_is_refused_with_both_named(head: TrustedHead) -> None:
    token = head.invite()
    before = content(head)
    with head.desk():
        for change in ({"tbcluster_version": "9.8.7"}, {"protocol": 99}):
            answer = say(head, [request(token.secret, **change)])
            assert isinstance(answer, Refused)
            assert f"tbcluster {change.get('tbcluster_version', VERSION)} " in answer.reason
            assert f"(protocol {change.get('protocol', RACK_PROTOCOL)})" in answer.reason
            assert f"head node {VERSION} (protocol {RACK_PROTOCOL})" in answer.reason
        malformed = say(head, [request(token.secret, "a b")])
        assert isinstance(malformed, Refused)
        assert "--name" in malformed.reason
        # The token is as good as before.
        assert content(head) == before
        assert isinstance(say(head, [request(token.secret)]), Joined)


def test_guessing_closes_the_port(head: TrustedHead, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tbcluster")
    token = head.invite()
    with head.desk():
        guesses = [[request(f"guess-{i}-{'x' * 16}")] for i in range(3 * MAX_REFUSALS)]
        say(head, *guesses)
        wait_until(lambda: not listens(head.join_port), "it closes")
        assert caplog.text.count("Machines cannot join for 60 s") == 1
    assert "guess" not in caplog.text
    assert token.secret not in caplog.text
    assert head.names() == ["head"]


def test_two_desks_share_the_port(head: TrustedHead, caplog: pytest.LogCaptureFixture) -> None:
    token, later = head.invite(), head.invite()
    with head.desk():
        with head.desk():
            wait_until(lambda: "most likely by `tbcluster serve`" in caplog.text, "one waits")
            assert isinstance(say(head, [request(token.secret)]), Joined)
        assert caplog.text.count("most likely by `tbcluster serve`") == 1
    with head.desk():
        assert isinstance(say(head, [request(later.secret)]), Joined)


def test_a_damaged_list_is_named_and_repaired(
    head: TrustedHead, caplog: pytest.LogCaptureFixture
) -> None:
    head.invite()
    path = head.folder.path / "members.json"
    good = path.read_bytes()
    with head.desk():
        path.write_bytes(b"{")
        wait_until(lambda: not listens(head.join_port), "it closes")
        assert caplog.text.count("nobody can join: ") == 1
        path.write_bytes(good)
        wait_until(lambda: listens(head.join_port), "it opens again")
