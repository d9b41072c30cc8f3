"""Whoever does not belong to the rack gets nothing from it, and changes nothing."""

from dataclasses import replace

import pytest

from tbcluster.cluster.trust import JoinToken, MemberFile, TrustFolder
from tests.doubles.namespaces import needs_namespaces
from tests.doubles.waiting import wait_until
from tests.rack.intruders import (
    GREETING_BYTES,
    Address,
    answers_to_plain_text,
    answers_to_zeromq,
)
from tests.rack.racks import Answers, FoundRack, check_answers

pytestmark = needs_namespaces


@pytest.fixture
def invitation(rack: FoundRack) -> JoinToken:
    """One that is open, so that the port for joining is too."""
    token = JoinToken.decode(rack.invite())
    wait_until(lambda: token.port + 1 in rack.listening(rack.head), "machines may join")
    return token


def test_strangers_get_nothing(rack: FoundRack, answers: Answers, invitation: JoinToken) -> None:
    before = rack.states()
    starts = [service.num_starts for service in rack.services.values()]
    ports = addresses(rack)
    # The control port, the one for joining, three agents' and two stages'.
    assert len(ports) >= 7
    keys = server_keys(rack, invitation)
    assert answers_to_zeromq(rack.network, "stranger", ports, keys) == []
    for address, heard in answers_to_plain_text(rack.network, "stranger", ports).items():
        assert len(heard) <= GREETING_BYTES, f"{address}: {heard!r}"
    check_answers(rack, answers)
    assert rack.states() == before
    assert [service.num_starts for service in rack.services.values()] == starts


def test_tokens_that_are_used_up_or_made_up_admit_nobody(
    rack: FoundRack, invitation: JoinToken
) -> None:
    members = MemberFile(TrustFolder(rack.home(rack.head)))
    before = members.nodes(), members.open_invitations()
    # The addresses of the old one are not the head node's any more.
    used_up = JoinToken.decode(rack.tokens[0]).secret
    for secret in (used_up, "A" * len(used_up)):
        token = replace(invitation, secret=secret)
        tried = rack.tbcluster("stranger", "join", token.encode(), is_checked=False)
        assert tried.returncode == 1
        assert "invite" in tried.stderr, "it says how to get a token"
        assert TrustFolder(rack.home("stranger")).membership() is None
    assert (members.nodes(), members.open_invitations()) == before


def test_a_revoked_node_is_shut_out(
    rack: FoundRack, answers: Answers, invitation: JoinToken
) -> None:
    rack.tbcluster("guest", "join", invitation.encode(), "--name", "guest")
    keys = TrustFolder(rack.home("guest")).node().keys
    # Too many messages without a token close the port for joining for a minute.
    ports = [(host, port) for host, port in addresses(rack) if port != invitation.port + 1]
    asked = (rack.network, "guest", ports, server_keys(rack, invitation), keys)
    wait_until(lambda: bool(answers_to_zeromq(*asked)), "a node that is not revoked is answered")
    agent = rack.start("guest", "agent")
    agent.await_output("connected to rack")
    rack.tbcluster(rack.head, "nodes", "revoke", "guest", "--yes")
    agent.await_output("revoked")
    assert answers_to_zeromq(*asked) == []
    assert rack.states()["guest"] == "revoked"
    agent.stop()
    check_answers(rack, answers)


def server_keys(rack: FoundRack, invitation: JoinToken) -> list[str]:
    """The public keys that the rack's sockets have."""
    nodes = [TrustFolder(rack.home(node)).node().keys.public for node in rack.nodes]
    return [invitation.server_key, *nodes]


def addresses(rack: FoundRack) -> list[Address]:
    """Every port of the rack's nodes that others can reach."""
    return [(rack.ends[node].ipv4, port) for node in rack.nodes for port in rack.listening(node)]
