"""Which replica of a model a request goes to. Pure.

A request follows its prefix: what a replica holds in its caches need not be computed again. But a
replica that has far more to do than another one loses it to that one: computing a prompt takes less
time than waiting in a queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# A shorter known prefix is computed again sooner than a request waits behind others for it.
MIN_KNOWN_TOKENS = 32
# The replica that holds the prefix may have this many times the load of the least loaded one, and
# this many requests more besides: a few requests are no queue yet.
MAX_LOAD_RATIO = 2.0
MAX_LEAD = 4


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica, as a request that looks for one sees it.

    Attributes:
        num_open: Requests that have not ended, those in its queue included.
        tokens_per_s: What it was planned to give: a faster one takes more requests.
        num_known: How many of the request's tokens it holds in its caches.
        is_up: Whether it answers now; False for one that recovers.
        is_starved: Whether it refuses requests until more nodes are there.
        has_failed: Whether it will never answer again.
        has_room: Whether a request of this length fits at all.
    """

    index: int
    num_open: int
    tokens_per_s: float = 1.0
    num_known: int = 0
    is_up: bool = True
    is_starved: bool = False
    has_failed: bool = False
    has_room: bool = True

    @property
    def load(self) -> float:
        """How long one more request would take beside the others, in no unit."""
        return (self.num_open + 1) / self.tokens_per_s


def choose(candidates: Sequence[Candidate]) -> int:
    """The index of the replica that a request goes to.

    Those that recover are passed over while another one is up, those that refuse requests while
    another one only recovers, and those where it never fits while it fits elsewhere.
    """
    eligible = _best_of(candidates)
    least = min(eligible, key=lambda one: (one.load, one.num_open, one.index))
    holder = max(eligible, key=lambda one: (one.num_known, -one.load, -one.index))
    if holder.num_known < MIN_KNOWN_TOKENS or _is_overloaded(holder, least):
        return least.index
    return holder.index


def _best_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    alive = [one for one in candidates if not one.has_failed] or list(candidates)
    fed = [one for one in alive if not one.is_starved] or alive
    fitting = [one for one in fed if one.has_room] or fed
    return [one for one in fitting if one.is_up] or fitting


def _is_overloaded(holder: Candidate, least: Candidate) -> bool:
    is_behind = holder.load > MAX_LOAD_RATIO * least.load
    return is_behind and holder.num_open - least.num_open > MAX_LEAD
