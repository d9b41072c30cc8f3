"""Finds the coordinator: listed addresses, then those that worked before, then multicast DNS."""

import logging
import time
from collections.abc import Callable, Sequence

from tbcluster.cluster.agent.dialing import Dialled, dial, seems_blocked
from tbcluster.cluster.agent.errands import Errands
from tbcluster.cluster.agent.search_notes import SearchNotes
from tbcluster.cluster.discovery.addresses import in_order
from tbcluster.cluster.discovery.mdns import Browser
from tbcluster.cluster.trust import Membership, TrustFolder
from tbcluster.cluster.trust.invitation import link_local_scopes
from tbcluster.errors import TrustError
from tbcluster.hardware.interfaces import local_interfaces

logger = logging.getLogger(__name__)

CLOSE_S = 5.0
LAN_BLOCKED = (
    "macOS seems to keep this process from the local network (Local Network privacy): run the "
    "agent as a daemon with `tbcluster service install`, or allow it in System Settings > "
    "Privacy & Security > Local Network"
)

# Addresses that answer, best first; whether macOS seems to block all of them.
OnFound = Callable[[tuple[str, ...], bool], None]


class Searcher:
    """Searches when it is told to, in a thread of its own. Multicast DNS is asked once the known
    addresses have not answered, until `rest`.

    Args:
        listed: Addresses of the rack file.
        on_found: Called with the outcome of each search, in the searcher's thread.
    """

    def __init__(
        self,
        folder: TrustFolder,
        membership: Membership,
        listed: Sequence[str],
        on_found: OnFound,
    ) -> None:
        self._folder = folder
        self._membership = membership
        self._listed = tuple(listed)
        self._on_found = on_found
        self._browser: Browser | None = None
        self._complaint = ""
        self._notes = SearchNotes(membership.cluster_name)
        self._errands = Errands("search")

    def search(self) -> None:
        """Look for it once."""
        self._errands.do(self._search)

    def rest(self, worked: Sequence[str], node_name: str) -> None:
        """It was found at the first of these addresses and calls this node so: both are remembered
        for the next time."""
        self._errands.do(lambda: self._rest(worked, node_name))

    def close(self) -> None:
        """End with the search that is under way."""
        self._errands.do(self._close_browser)
        self._errands.close(CLOSE_S)

    def _search(self) -> None:
        dialled, is_blocked = Dialled(), False
        try:
            addresses = self._addresses()
            self._log(logging.INFO, self._notes.began(time.monotonic(), addresses))
            dialled = dial(addresses)
            self._note(dialled, addresses)
            is_blocked = seems_blocked(dialled.failed.values(), len(addresses))
            if not dialled.answered and self._browser is None:
                self._browser = Browser(self._membership.cluster_id)
        except (TrustError, OSError, ValueError) as error:
            self._complain(f"cannot look for the coordinator: {error}")
        finally:
            # Whatever went wrong: who waits for this search begins another.
            self._on_found(dialled.answered, is_blocked)

    def _addresses(self) -> tuple[str, ...]:
        known = self._folder.membership()
        if known is None or known.coordinator_key != self._membership.coordinator_key:
            raise TrustError(
                f"this machine does not belong to cluster {self._membership.cluster_name!r} any "
                "more: start the agent again"
            )
        heard = self._browser.addresses() if self._browser is not None else ()
        groups = (self._listed, known.addresses, heard)
        return in_order(groups, known.control_port, link_local_scopes(local_interfaces()))

    def _note(self, dialled: Dialled, tried: Sequence[str]) -> None:
        now, port = time.monotonic(), self._membership.control_port
        if dialled.answered:
            self._notes.answered(now)
        else:
            self._log(logging.WARNING, self._notes.in_vain(now, tried, port))

    def _rest(self, worked: Sequence[str], node_name: str) -> None:
        self._complaint = ""
        self._notes.settled()
        self._close_browser()
        try:
            known = self._folder.membership()
            remembered = known.addresses if known is not None else ()
            self._folder.remember(tuple(dict.fromkeys((*worked, *remembered))))
            self._folder.rename(node_name)
        except TrustError as error:
            self._complain(f"what the coordinator said is not remembered: {error}")

    def _close_browser(self) -> None:
        if self._browser is not None:
            self._browser.close()
            self._browser = None

    def _log(self, level: int, line: str | None) -> None:
        if line is not None:
            logger.log(level, "%s", line)

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            logger.error("%s", text)
        self._complaint = text
