"""Trust: who belongs to a cluster, and how a machine comes to belong to it."""

from tbcluster.cluster.trust.desk import JoinDesk
from tbcluster.cluster.trust.folder import TrustFolder
from tbcluster.cluster.trust.identity import (
    CONTROL_PORT,
    HeadIdentity,
    Membership,
    NodeIdentity,
    id_of,
)
from tbcluster.cluster.trust.invitation import invite_node
from tbcluster.cluster.trust.join_token import JoinToken
from tbcluster.cluster.trust.joining import join_cluster
from tbcluster.cluster.trust.members import MemberFile, MemberRing
from tbcluster.cluster.trust.roster import Member

__all__ = [
    "CONTROL_PORT",
    "HeadIdentity",
    "JoinDesk",
    "JoinToken",
    "Member",
    "MemberFile",
    "MemberRing",
    "Membership",
    "NodeIdentity",
    "TrustFolder",
    "id_of",
    "invite_node",
    "join_cluster",
]
