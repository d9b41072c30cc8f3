"""The folder where a node keeps who it is, and whom it trusts."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec

from tbcluster.cluster.trust.identity import (
    CONTROL_PORT,
    HeadIdentity,
    Key,
    Membership,
    NodeIdentity,
    Port,
    id_of,
)
from tbcluster.cluster.trust.names import NAME_PATTERN, checked_name
from tbcluster.cluster.trust.roster import Member, Roster
from tbcluster.cluster.trust.stored import StoredFile
from tbcluster.errors import TrustError
from tbcluster.hardware.folders import config_folder
from tbcluster.transport.curve import new_keys
from tbcluster.wire.control import CurveKeys

RESTORE = "restore it from a copy, or remove it and join again"
ELSEWHERE = "a second cluster needs a folder of its own, which TBCLUSTER_HOME names"
MAX_ADDRESSES = 16

_Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    public_key: Key
    secret_key: Key


class _ClusterFile(_KeyFile, frozen=True, forbid_unknown_fields=True):
    name: _Name
    control_port: Port


class _MembershipFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cluster_name: _Name
    node_name: _Name
    coordinator_key: Key
    control_port: Port
    addresses: tuple[str, ...]


class TrustFolder:
    """A node's keys, and of the cluster what this node has to know.

    `node.json` has the node's own keys, `membership.json` the cluster that it joined. On the head
    node `cluster.json` has the cluster's keys and `members.json` its nodes.

    Every method raises TrustError where a file is open to others, damaged or cannot be used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else config_folder()
        self._node = StoredFile(self.path / "node.json", _KeyFile, RESTORE)
        self._membership = StoredFile(self.path / "membership.json", _MembershipFile, RESTORE)
        self._cluster = StoredFile(
            self.path / "cluster.json", _ClusterFile, "restore it from a copy"
        )
        self.roster = StoredFile(self.path / "members.json", Roster, "restore it from a copy")

    def node(self) -> NodeIdentity:
        """This node's own identity, made when it is first asked for and the same ever after."""
        stored = self._node.load()
        if stored is None:
            with self._node.locked():
                stored = self._node.load() or self._make_keys()
        return NodeIdentity(id_of(stored.public_key), _keys(stored))

    def renew_node(self) -> NodeIdentity:
        """Other keys, and so another id: this node has to be admitted anew.

        Raises:
            TrustError: This is the head node, or the folder cannot be used.
        """
        self.check_is_no_head()
        with self._node.locked():
            stored = self._make_keys()
        return NodeIdentity(id_of(stored.public_key), _keys(stored))

    def head(self) -> HeadIdentity | None:
        """The cluster's identity on its head node; None on any other."""
        stored = self._cluster.load()
        if stored is None:
            return None
        return HeadIdentity(
            id_of(stored.public_key), stored.name, _keys(stored), stored.control_port
        )

    def membership(self) -> Membership | None:
        """The cluster that this node belongs to; on the head node its own, over loopback."""
        head = self.head()
        if head is not None:
            return self._own_membership(head)
        stored = self._membership.load()
        if stored is None:
            return None
        return Membership(
            id_of(stored.coordinator_key),
            stored.cluster_name,
            stored.node_name,
            stored.coordinator_key,
            stored.addresses,
            stored.control_port,
        )

    def init(
        self, cluster_name: str, node_name: str, control_port: int = CONTROL_PORT
    ) -> HeadIdentity:
        """Make a cluster, of which this node is the head and the first member.

        Raises:
            TrustError: There is one, this node belongs to another, a name is malformed or the
                folder cannot be used.
        """
        checked_name(cluster_name)
        checked_name(node_name)
        node = self.node()
        with self._cluster.locked():
            self._check_no_membership()
            joined = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            me = Member(node.node_id, node_name, node.keys.public, joined, is_head=True)
            with self.roster.locked():
                self.roster.save(Roster((me,)))
            keys = new_keys()
            # Last: from here on there is a cluster, whole.
            self._cluster.save(_ClusterFile(keys.public, keys.secret, cluster_name, control_port))
        return HeadIdentity(id_of(keys.public), cluster_name, keys, control_port)

    def join(self, membership: Membership) -> None:
        """Keep that this node belongs to this cluster, and to no other.

        Raises:
            TrustError: This is the head node of a cluster, or the folder cannot be used.
        """
        self.check_is_no_head()
        with self._membership.locked():
            self._membership.save(_stored(membership))

    def remember(self, addresses: tuple[str, ...]) -> None:
        """Keep where the coordinator was reached, best first. The head node needs none of it."""
        if self.head() is not None:
            return
        with self._membership.locked():
            known = self.membership()
            if known is not None and known.addresses != addresses[:MAX_ADDRESSES]:
                self._membership.save(_stored(replace(known, addresses=addresses)))

    def rename(self, node_name: str) -> None:
        """Keep what the cluster calls this node. The head node's list of members says it there.

        Raises:
            TrustError: It is no name, or the folder cannot be used.
        """
        if self.head() is not None:
            return
        with self._membership.locked():
            known = self.membership()
            if known is not None and known.node_name != node_name:
                renamed = replace(known, node_name=checked_name(node_name))
                self._membership.save(_stored(renamed))

    def check_is_no_head(self) -> None:
        """Raises: TrustError where this machine is the head node of a cluster."""
        head = self.head()
        if head is not None:
            raise TrustError(
                f"this machine is the head node of cluster {head.cluster_name!r} "
                f"({head.cluster_id}), kept in {self.path}: {ELSEWHERE}"
            )

    def _own_membership(self, head: HeadIdentity) -> Membership:
        roster = self.roster.load()
        if roster is None:
            raise TrustError(
                f"{self.roster.path} is missing, the list of the nodes of {head.cluster_name!r}: "
                "restore it from a copy"
            )
        name = next(member.name for member in roster.members if member.is_head)
        port = head.control_port
        addresses = (f"127.0.0.1:{port}", f"[::1]:{port}")
        key = head.keys.public
        return Membership(head.cluster_id, head.cluster_name, name, key, addresses, port)

    def _make_keys(self) -> _KeyFile:
        keys = new_keys()
        stored = _KeyFile(keys.public, keys.secret)
        self._node.save(stored)
        return stored

    def _check_no_membership(self) -> None:
        self.check_is_no_head()
        known = self.membership()
        if known is not None:
            raise TrustError(
                f"this machine is node {known.node_name!r} of cluster {known.cluster_name!r} "
                f"({known.cluster_id}), kept in {self.path}: {ELSEWHERE}"
            )


def _keys(stored: _KeyFile) -> CurveKeys:
    return CurveKeys(stored.public_key, stored.secret_key)


def _stored(membership: Membership) -> _MembershipFile:
    return _MembershipFile(
        membership.cluster_name,
        membership.node_name,
        membership.coordinator_key,
        membership.control_port,
        membership.addresses[:MAX_ADDRESSES],
    )
