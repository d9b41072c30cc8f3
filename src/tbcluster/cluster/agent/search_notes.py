"""What the log says of a search for the coordinator, and when. Pure."""

from collections.abc import Sequence

# The head node may just be starting.
VAIN_AFTER_S = 15.0
VAIN_AGAIN_S = 600.0
# One link-local address is tried on every interface.
MAX_NAMED = 8


class SearchNotes:
    """Told of every search; each method returns a line, or None where there is nothing new."""

    def __init__(self, cluster_name: str) -> None:
        self._cluster_name = cluster_name
        self._is_known = False
        self._warn_at = 0.0

    def began(self, now: float, addresses: Sequence[str]) -> str | None:
        """These addresses are about to be tried: worth a line once until `settled`."""
        if self._is_known:
            return None
        self._is_known = True
        self._warn_at = now + VAIN_AFTER_S
        where = f"at {_named(addresses)} and " if addresses else ""
        return f"looking for the head node of {self._cluster_name} {where}by multicast DNS"

    def in_vain(self, now: float, addresses: Sequence[str], port: int) -> str | None:
        """None of them answered."""
        if now < self._warn_at:
            return None
        self._warn_at = now + VAIN_AGAIN_S
        where = f"at {_named(addresses)}" if addresses else "by multicast DNS"
        return (
            f"nothing answers {where}: is `tbcluster serve` running on the head node, and does a "
            f"firewall let port {port} pass?"
        )

    def answered(self, now: float) -> None:
        """Somebody is there, whoever it is."""
        self._warn_at = now + VAIN_AFTER_S

    def settled(self) -> None:
        """It was found: the next search is another one."""
        self._is_known = False


def _named(addresses: Sequence[str]) -> str:
    num_more = len(addresses) - MAX_NAMED
    more = f" and {num_more} more" if num_more > 0 else ""
    return ", ".join(addresses[:MAX_NAMED]) + more
