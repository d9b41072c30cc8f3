"""How this machine becomes a node: it asks the head node that the token names."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import version

from tbcluster.cluster.discovery.addresses import in_order, join_port, lacks_scope, split_port
from tbcluster.cluster.links.reach import answering
from tbcluster.cluster.trust.desk import MAX_JOIN_BYTES
from tbcluster.cluster.trust.folder import TrustFolder
from tbcluster.cluster.trust.identity import Membership, NodeIdentity
from tbcluster.cluster.trust.invitation import link_local_scopes
from tbcluster.cluster.trust.join_token import JoinToken
from tbcluster.cluster.trust.names import checked_name
from tbcluster.errors import JoinError, WireError
from tbcluster.hardware.interfaces import local_interfaces
from tbcluster.machine import Path
from tbcluster.transport.control import ControlClient
from tbcluster.wire.control import Route
from tbcluster.wire.rack import (
    RACK_PROTOCOL,
    Joined,
    JoinRequest,
    Refused,
    decode_join_answer,
    encode_message,
)

# Who listens but does not answer within this time is not the head node.
ANSWER_S = 5.0
PAUSE_S = 1.0
LAN_HINT = (
    " macOS may also keep this terminal from the local network: allow it in System Settings > "
    "Privacy & Security > Local Network"
)


def join_cluster(
    token: JoinToken,
    folder: TrustFolder,
    name: str,
    *,
    deadline_s: float,
    on_note: Callable[[str], None],
) -> Membership:
    """Have this machine admitted, and keep that in its folder. Waits for the head node.

    It may be called again after an interruption: the head node gives the same answer to the same
    machine.

    Args:
        name: What this node shall be called; the answer may differ.
        deadline_s: How long the head node is waited for, in seconds.
        on_note: Told in a line what is being waited for.

    Raises:
        JoinError: The head node refused, or did not answer in time.
        TrustError: This is the head node of a cluster, or the folder cannot be used.
    """
    folder.check_is_no_head()
    applicant = _Applicant(token, folder.node(), checked_name(name))
    give_up = time.monotonic() + deadline_s
    is_told = False
    while True:
        membership = applicant.ask_everywhere()
        if membership is not None:
            folder.join(membership)
            return membership
        if time.monotonic() + PAUSE_S > give_up:
            raise JoinError(_in_vain(token, deadline_s))
        if not is_told:
            is_told = True
            on_note(
                f"Waiting for the head node at {_listed(token)}: there, `tbcluster serve` or "
                "`tbcluster invite --wait` has to run."
            )
        time.sleep(PAUSE_S)


class _Applicant:
    def __init__(self, token: JoinToken, identity: NodeIdentity, name: str) -> None:
        self._token = token
        self._identity = identity
        self._request = JoinRequest(token.secret, name, RACK_PROTOCOL, version("tbcluster"))

    def ask_everywhere(self) -> Membership | None:
        """Ask at each address where something listens; None if none of them is the head node.

        Raises:
            JoinError: The head node refused.
        """
        for host in self._listening():
            joined = self._ask(host)
            if joined is not None:
                return self._membership(joined, host)
        return None

    def _listening(self) -> Iterator[str]:
        interfaces = local_interfaces()
        port = self._token.port + 1
        addresses = in_order([self._token.addresses], port, link_local_scopes(interfaces))
        hosts = [split_port(address, port)[0] for address in addresses]
        paths = [Path(interface="", address=host, remote_interface="") for host in hosts]
        for path in answering(paths, port, interfaces):
            yield path.address

    def _ask(self, host: str) -> Joined | None:
        route = Route(f"tcp://{join_port(host, self._token.port + 1)}", self._token.server_key)
        client = ControlClient(route, self._identity.keys, max_message_bytes=MAX_JOIN_BYTES)
        with closing(client):
            client.send([encode_message(self._request)])
            frames = client.receive(ANSWER_S)
        if frames is None:
            return None
        try:
            answer = decode_join_answer(frames[0])
        except WireError as error:
            raise JoinError(
                f"the head node answered what this version of tbcluster does not understand "
                f"({error}): install the same version on both"
            ) from error
        if isinstance(answer, Refused):
            raise JoinError(answer.reason)
        return answer

    def _membership(self, joined: Joined, host: str) -> Membership:
        token = self._token
        others = [one for one in token.addresses if one != host and not lacks_scope(one)]
        return Membership(
            token.cluster_id,
            joined.cluster_name,
            joined.node_name,
            token.server_key,
            tuple(join_port(each, token.port) for each in (host, *others)),
            token.port,
        )


def _listed(token: JoinToken) -> str:
    return ", ".join(join_port(host, token.port + 1) for host in token.addresses)


def _in_vain(token: JoinToken, deadline_s: float) -> str:
    late_s = time.time() - token.expires
    if late_s > 0:
        return (
            f"the head node did not answer, and this token expired {math.ceil(late_s / 60)} "
            "minutes ago by the clock here: make a new one with `tbcluster invite` there"
        )
    return (
        f"the head node did not answer within {deadline_s:.0f} s at {_listed(token)}. Is "
        "`tbcluster serve` or `tbcluster invite --wait` running there, is this machine on one of "
        "its networks, and does a firewall let that port pass?"
        + (LAN_HINT if sys.platform == "darwin" else "")
    )
