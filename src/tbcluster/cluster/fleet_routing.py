"""Which copy of a fleet a request goes to: region, site, pod, copy, the least loaded each. Pure.

On each level the load is that of `routing.Candidate`: requests that have not ended, by planned
speed; of a region or site both are sums over what is up beneath it. The least loaded of many is
kept in a tree of minima: a request costs O(log n) on each level, however large the fleet.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tbcluster.cluster.routing import MIN_KNOWN_TOKENS, Candidate, choose
from tbcluster.planner.fleet import FleetPlan, RegionPlan
from tbcluster.planner.pod_plans import PodPlan


class LeastLoaded:
    """Loads by place, the least of which is known at any time."""

    def __init__(self, loads: Sequence[float]) -> None:
        self._size = 1 << max(0, len(loads) - 1).bit_length()
        self._tree = [math.inf] * (2 * self._size)
        self._tree[self._size : self._size + len(loads)] = loads
        for at in range(self._size - 1, 0, -1):
            self._tree[at] = min(self._tree[2 * at], self._tree[2 * at + 1])

    def set(self, place: int, load: float) -> None:
        """Change one of them."""
        tree, at = self._tree, self._size + place
        tree[at] = load
        at //= 2
        while at:
            left, right = tree[2 * at], tree[2 * at + 1]
            tree[at] = left if left <= right else right
            at //= 2

    def place(self) -> int | None:
        """The first one of the least load; None if all are infinite."""
        if self._tree[1] == math.inf:
            return None
        at = 1
        while at < self._size:
            at = 2 * at if self._tree[2 * at] == self._tree[at] else 2 * at + 1
        return at - self._size


class _Branch:
    """A region, site, pod or copy.

    Attributes:
        index: Of a copy; -1 for others.
        num_open, tokens_per_s: Sums over the children that are up; of a copy its own.
    """

    __slots__ = (
        "children",
        "index",
        "is_up",
        "least",
        "num_open",
        "parent",
        "place",
        "tokens_per_s",
    )

    def __init__(
        self, children: "Sequence[_Branch]" = (), index: int = -1, tokens_per_s: float = 0.0
    ) -> None:
        self.children = children
        self.index = index
        self.is_up = True
        self.num_open = 0
        self.tokens_per_s = tokens_per_s
        self.parent: _Branch | None = None
        self.place = 0
        if children:
            self.tokens_per_s = math.fsum(child.tokens_per_s for child in children)
            self.least = LeastLoaded([child.load for child in children])
            for place, child in enumerate(children):
                child.parent, child.place = self, place

    @property
    def load(self) -> float:
        """As `routing.Candidate.load`; infinite where nothing is up."""
        if not self.is_up or self.tokens_per_s <= 0:
            return math.inf
        return (self.num_open + 1) / self.tokens_per_s

    def count(self, change: int) -> None:
        """Requests that came or ended, here and above, up to what is down."""
        branch: _Branch = self
        branch.num_open += change
        while branch.parent is not None:
            branch.parent.least.set(branch.place, branch.load)
            if not branch.is_up:
                return
            branch = branch.parent
            branch.num_open += change

    def set_up(self, is_up: bool) -> None:
        """Whether it answers. Sums are made anew: nothing of what is down is left in them."""
        self.is_up = is_up
        branch = self
        while branch.parent is not None:
            above = branch.parent
            above.least.set(branch.place, branch.load)
            up = [child for child in above.children if child.is_up]
            above.tokens_per_s = math.fsum(child.tokens_per_s for child in up)
            above.num_open = sum(child.num_open for child in up)
            branch = above

    def copy(self) -> "_Branch | None":
        """The least loaded copy beneath, by the least loaded branch of each level; None if nothing
        is up."""
        branch = self
        if branch.load == math.inf:
            return None
        while branch.children:
            place = branch.least.place()
            if place is None:
                return None
            branch = branch.children[place]
        return branch


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the model: its number in the fleet, and where it is. `site` is the name of a joined
    pipeline where it runs on several."""

    index: int
    region: str
    site: str
    tokens_per_s: float


class FleetRouter:
    """Sends requests to the copies of a fleet.

    Attributes:
        copies: By index.
    """

    def __init__(self, plan: FleetPlan) -> None:
        self.copies: list[Copy] = []
        self._leaves: list[_Branch] = []
        self._sites: dict[str, _Branch] = {}
        # Pipelines over several sites: down while one of those is.
        self._joined: dict[str, list[tuple[_Branch, tuple[str, ...]]]] = {}
        self._known: set[str] = set()
        self._down: set[str] = set()
        self._regions = {
            region.name: _Branch(branches)
            for region in plan.regions
            if (branches := list(self._branches(region)))
        }
        self._fleet = _Branch(list(self._regions.values()))

    def open(
        self, near: str | None = None, holder: int | None = None, num_known: int = 0
    ) -> int | None:
        """Send a request; the index of its copy, or None if nothing is up.

        As between the copies of a rack (see `routing.choose`) a preference holds until what is
        preferred has far more to do than the least loaded one.

        Args:
            near: The region that the request comes from.
            holder: The copy that holds the beginning of its prompt, `num_known` tokens of it.
        """
        if self._fleet.load == math.inf:
            return None
        region = self._regions.get(near) if near is not None else None
        least = self._fleet.copy()
        if region is not None and least is not None and region.load < math.inf:
            place = self._fleet.least.place()
            other = self._fleet.children[place] if place is not None else region
            least = _preferred(region, other, MIN_KNOWN_TOKENS).copy()
        if least is None:
            return None
        if holder is not None and num_known and self.is_up(holder):
            least = _preferred(self._leaves[holder], least, num_known)
        least.count(+1)
        return least.index

    def close(self, index: int) -> None:
        """A request of this copy has ended."""
        self._leaves[index].count(-1)

    def num_open(self, index: int) -> int:
        """Requests of a copy that have not ended."""
        return self._leaves[index].num_open

    def is_up(self, index: int) -> bool:
        """Whether a copy and all above it answer."""
        branch: _Branch | None = self._leaves[index]
        while branch is not None and branch.is_up:
            branch = branch.parent
        return branch is None

    def set_site(self, name: str, *, is_up: bool) -> None:
        """A site answers from now on, or does not: no request goes there, nor to pipelines that it
        takes part in.

        Raises:
            KeyError: There is no site of this name.
        """
        if name not in self._known:
            raise KeyError(name)
        (self._down.discard if is_up else self._down.add)(name)
        if name in self._sites:
            self._sites[name].set_up(is_up)
        for branch, sites in self._joined.get(name, ()):
            branch.set_up(self._down.isdisjoint(sites))

    def set_copy(self, index: int, *, is_up: bool) -> None:
        """A copy answers from now on, or does not."""
        self._leaves[index].set_up(is_up)

    def _branches(self, region: RegionPlan) -> Iterator[_Branch]:
        """Of sites with copies, and of pipelines over several."""
        for site in region.sites:
            name = site.site.name
            self._known.add(name)
            if site.pods:
                self._sites[name] = self._branch(region.name, name, site.pods)
                yield self._sites[name]
        for one in region.joined:
            branch = self._branch(region.name, one.name, (one.pod,))
            for name in one.sites:
                self._joined.setdefault(name, []).append((branch, one.sites))
            yield branch

    def _branch(self, region: str, site: str, pods: Sequence[PodPlan]) -> _Branch:
        branches = []
        for pod in pods:
            leaves = []
            for replica in pod.plan.replicas:
                index = len(self.copies)
                self.copies.append(Copy(index, region, site, replica.tokens_per_s))
                leaves.append(_Branch(index=index, tokens_per_s=replica.tokens_per_s))
            self._leaves += leaves
            branches.append(_Branch(leaves))
        return _Branch(branches)


def _preferred(held: _Branch, least: _Branch, num_known: int) -> _Branch:
    """What is preferred, unless `routing.choose` takes the other one."""
    pair = (
        Candidate(0, least.num_open, least.tokens_per_s),
        Candidate(1, held.num_open, held.tokens_per_s, num_known),
    )
    return held if choose(pair) == 1 else least
