"""The list of nodes and the open invitations: pure, each change gives a new one."""

import hmac
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec.structs import replace

from tbcluster.cluster.trust.identity import Key, id_of
from tbcluster.cluster.trust.names import NAME_PATTERN, checked_name, free_name
from tbcluster.errors import JoinError, TrustError, UnknownNodeError

# A node that was admitted and did not hear so can ask again for this long, whatever else is open.
REPEAT_S = 600.0


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node that was admitted.

    Attributes:
        joined: When, UTC, as YYYY-MM-DDTHH:MM:SSZ.
        is_revoked: It may not connect any more; its key is never admitted again.
        is_drained: It belongs to the cluster and runs no stages, until that is undone.
    """

    node_id: str
    name: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    public_key: Key
    joined: str
    is_head: bool = False
    is_revoked: bool = False
    is_drained: bool = False

    def __post_init__(self) -> None:
        if self.node_id != id_of(self.public_key):
            raise ValueError(f"{self.node_id!r} is not the id of the key of {self.name!r}")


class Invitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine may join.

    Attributes:
        sha256: Hash of the secret, in hexadecimal. The secret is random and long: nobody guesses
            it, however fast the hash.
        expires: Unix time, seconds.
        used_by: Public key of the node that it admitted, at the time `used_at`.
    """

    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    expires: float
    used_by: Key | None = None
    used_at: float | None = None

    def is_open(self, now: float) -> bool:
        """Whether another node can be admitted."""
        return self.used_by is None and now < self.expires

    def is_awaited(self, now: float) -> bool:
        """Whether someone may still ask with it, for the first time or having missed the answer."""
        if self.used_at is not None:
            return now < min(self.expires, self.used_at + REPEAT_S)
        return now < self.expires


class Roster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All nodes of a cluster, in the order in which they came, and its invitations."""

    members: tuple[Member, ...]
    invitations: tuple[Invitation, ...] = ()

    def __post_init__(self) -> None:
        for unique in ("name", "node_id"):
            if len({getattr(member, unique) for member in self.members}) < len(self.members):
                raise ValueError(f"two nodes have the same {unique}")
        if sum(member.is_head for member in self.members) != 1:
            raise ValueError("not exactly one node is the head")

    def find(self, name: str) -> Member:
        """The node of this name or id.

        Raises:
            UnknownNodeError: There is none.
        """
        for member in self.members:
            if name in (member.name, member.node_id):
                return member
        names = ", ".join(member.name for member in self.members)
        raise UnknownNodeError(f"no node is called {name!r}: there are {names}")


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def invited(roster: Roster, secret: str, now: float, valid_s: float) -> Roster:
    """With one invitation more; those that expired are gone."""
    fresh = Invitation(digest(secret), now + valid_s)
    return replace(roster, invitations=(*_unexpired(roster.invitations, now), fresh))


def without_open_invitations(roster: Roster, now: float) -> Roster:
    """Whoever has a token that was not used cannot join with it any more."""
    kept = tuple(invitation for invitation in roster.invitations if not invitation.is_open(now))
    return replace(roster, invitations=kept)


def admitted(
    roster: Roster, secret: str, public_key: str, wanted_name: str, now: float, joined: str
) -> tuple[Roster, Member]:
    """With the node that has this key, under the name it wants or one like it.

    A node that asks again gets the same answer.

    Raises:
        JoinError: The secret admits nobody any more, or not this key.
        TrustError: The name is malformed.
    """
    invitation = _matching(roster.invitations, secret, now)
    known = next((one for one in roster.members if one.public_key == public_key), None)
    if known is not None and known.is_revoked:
        raise JoinError(
            f"the keys of this machine were revoked, when it was node {known.name!r}: join with "
            "other ones, `tbcluster join TOKEN --new-keys`"
        )
    if invitation.used_by is not None:
        if invitation.used_by != public_key or known is None:
            raise JoinError(
                "this token has admitted another machine already, and each admits one: make a new "
                "one with `tbcluster invite` on the head node"
            )
        return roster, known
    used = replace(invitation, used_by=public_key, used_at=now)
    invitations = tuple(used if one is invitation else one for one in roster.invitations)
    if known is not None:
        return replace(roster, invitations=invitations), known
    members = _with_name_free(roster.members, checked_name(wanted_name))
    name = free_name(wanted_name, [member.name for member in members])
    member = Member(id_of(public_key), name, public_key, joined)
    return Roster((*members, member), invitations), member


def renamed(roster: Roster, old: str, new: str) -> Roster:
    """With a node's name changed.

    Raises:
        UnknownNodeError: No node is called `old`.
        TrustError: `new` is taken or malformed.
    """
    member = roster.find(old)
    checked_name(new)
    others = [one for one in roster.members if one is not member]
    if any(new in (other.name, other.node_id) for other in others):
        raise TrustError(f"there is a node {new!r} already: choose another name")
    return _replaced(roster, member, replace(member, name=new))


def revoked(roster: Roster, name: str) -> Roster:
    """With a node that may not connect any more.

    Raises:
        UnknownNodeError: There is none of this name.
        TrustError: It is the head node.
    """
    member = revocable(roster, name)
    return _replaced(roster, member, replace(member, is_revoked=True))


def drained(roster: Roster, name: str, *, is_drained: bool) -> Roster:
    """With a node that is given no stages, or takes part again.

    Raises:
        UnknownNodeError: There is none of this name.
        TrustError: It was revoked.
    """
    member = drainable(roster, name)
    return _replaced(roster, member, replace(member, is_drained=is_drained))


def drainable(roster: Roster, name: str) -> Member:
    """The node that would be drained; raises as `drained` does."""
    member = roster.find(name)
    if member.is_revoked:
        raise TrustError(f"{member.name!r} was revoked: it takes no part anyway")
    return member


def revocable(roster: Roster, name: str) -> Member:
    """The node that would be revoked; raises as `revoked` does."""
    member = roster.find(name)
    if member.is_head:
        raise TrustError(
            f"{member.name!r} is the head node: without it there is no cluster. To end this "
            "cluster, remove its folder and make another with `tbcluster init`"
        )
    return member


def _matching(invitations: Iterable[Invitation], secret: str, now: float) -> Invitation:
    wanted = digest(secret)
    found = None
    for invitation in invitations:
        # All are compared, each in constant time: how long it takes tells nothing.
        if hmac.compare_digest(invitation.sha256, wanted):
            found = invitation
    if found is None or now >= found.expires:
        raise JoinError(
            "the head node does not know this token, or it has expired: make a new one with "
            "`tbcluster invite` there"
        )
    return found


def _unexpired(invitations: Iterable[Invitation], now: float) -> tuple[Invitation, ...]:
    return tuple(invitation for invitation in invitations if now < invitation.expires)


def _with_name_free(members: tuple[Member, ...], name: str) -> tuple[Member, ...]:
    """A revoked node gives its name up to the next one that wants it, and is known by its id."""
    return tuple(
        replace(member, name=member.node_id)
        if member.is_revoked and member.name == name
        else member
        for member in members
    )


def _replaced(roster: Roster, old: Member, new: Member) -> Roster:
    members = tuple(new if member is old else member for member in roster.members)
    return replace(roster, members=members)
