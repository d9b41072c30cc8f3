"""The nodes of a cluster on its head node's disk, and those that may connect now."""

import secrets
import time
from collections.abc import Callable

from tbcluster.cluster.trust import roster as rosters
from tbcluster.cluster.trust.folder import TrustFolder
from tbcluster.cluster.trust.roster import Member, Roster
from tbcluster.errors import TrustError
from tbcluster.hardware.followed import Followed

SECRET_BYTES = 16


class MemberFile:
    """All nodes of the cluster, and its invitations. Any number of processes may use it at once.

    Every method raises TrustError where the file is missing, open to others, damaged or cannot be
    written.
    """

    def __init__(self, folder: TrustFolder, clock: Callable[[], float] = time.time) -> None:
        self._file = folder.roster
        self._clock = clock

    def nodes(self) -> tuple[Member, ...]:
        """All nodes, the revoked ones too, in the order in which they came."""
        return self._load().members

    def version(self) -> tuple[int, ...] | None:
        """Differs once the file has changed; None where there is none."""
        return self._file.version()

    def invite(self, valid_s: float) -> str:
        """The secret that admits one machine within so many seconds. It is not kept."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        now = self._clock()
        self._change(lambda roster: rosters.invited(roster, secret, now, valid_s))
        return secret

    def cancel_invitations(self) -> None:
        """Make all tokens worthless that were not used."""
        now = self._clock()
        self._change(lambda roster: rosters.without_open_invitations(roster, now))

    def open_invitations(self) -> int:
        """How many machines may still join."""
        now = self._clock()
        return sum(invitation.is_open(now) for invitation in self._load().invitations)

    def awaits_nodes(self) -> bool:
        """Whether a machine may still ask to join, or ask again because it missed the answer."""
        now = self._clock()
        return any(invitation.is_awaited(now) for invitation in self._load().invitations)

    def admit(self, secret: str, public_key: str, wanted_name: str) -> Member:
        """Make the machine that has this key a node, once for each secret.

        The same key with the same secret gets the same answer again, whatever became of the first.

        Raises:
            JoinError: The secret admits nobody any more, or not this key.
        """
        now = self._clock()
        joined = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        with self._file.locked():
            before = self._load()
            after, member = rosters.admitted(before, secret, public_key, wanted_name, now, joined)
            if after is not before:
                self._file.save(after)
        return member

    def rename(self, old: str, new: str) -> None:
        """Raises: UnknownNodeError for `old`; TrustError where `new` is taken or malformed."""
        self._change(lambda roster: rosters.renamed(roster, old, new))

    def revocable(self, name: str) -> Member:
        """The node that `revoke` would revoke, or has; raises as that does."""
        return rosters.revocable(self._load(), name)

    def revoke(self, name: str) -> None:
        """End a node's membership.

        Raises:
            UnknownNodeError: There is none of this name or id.
            TrustError: It is the head node.
        """
        self._change(lambda roster: rosters.revoked(roster, name))

    def drainable(self, name: str) -> Member:
        """The node that `drain` would drain, or has; raises as that does."""
        return rosters.drainable(self._load(), name)

    def drain(self, name: str) -> None:
        """Give a node no stages any more, until `undrain`.

        Raises:
            UnknownNodeError: There is none of this name or id.
            TrustError: It was revoked.
        """
        self._change(lambda roster: rosters.drained(roster, name, is_drained=True))

    def undrain(self, name: str) -> None:
        """Let it take part again; raises as `drain` does."""
        self._change(lambda roster: rosters.drained(roster, name, is_drained=False))

    def _change(self, change: Callable[[Roster], Roster]) -> None:
        with self._file.locked():
            self._file.save(change(self._load()))

    def _load(self) -> Roster:
        roster = self._file.load()
        if roster is None:
            raise TrustError(
                f"there is no {self._file.path}: this is not the head node of a cluster. Run this "
                "there, or make a cluster with `tbcluster init`"
            )
        return roster


class MemberRing:
    """The nodes as they are now: follows their file. Thread-safe.

    Raises (from the constructor):
        TrustError: As `MemberFile.nodes`. Later ones are logged, and the nodes stay as they were.
    """

    def __init__(self, file: MemberFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._members = Followed(file.nodes, file.version, "the nodes from before", clock)

    def members(self) -> tuple[Member, ...]:
        """All nodes, the revoked ones too."""
        return self._members.now()

    def find(self, public_key: str) -> Member | None:
        """The node that has this key, revoked or not."""
        return next((one for one in self._members.now() if one.public_key == public_key), None)

    def allows(self, public_key: str) -> bool:
        """Whether this is the key of a node that is not revoked."""
        member = self.find(public_key)
        return member is not None and not member.is_revoked
