"""What is known of the ways between nodes, and what has yet to be measured. Pure."""

from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from tbcluster.errors import NoPathError, WireError
from tbcluster.machine import Interface, LinkView, PathMeasurement

MEASURE_TIMEOUT_S = 60.0
# A cable may have been plugged in just when no address answered.
RETRY_S = 30.0
# Links are measured again after a while, should a cable have been changed for a better one.
MAX_AGE_S = 7 * 24 * 3600.0

Pair = tuple[str, str]


class SavedLink(msgspec.Struct, frozen=True):
    """What is kept of a link from one run to the next, as long as the interfaces stay the same."""

    source: str
    target: str
    fingerprint: str
    paths: tuple[PathMeasurement, ...]


class LinkBook:
    """The paths from each node to each other one, best first, and which of them answer now."""

    def __init__(self, saved: Iterable[SavedLink] = ()) -> None:
        self._links = {(link.source, link.target): link for link in saved}
        self._dead: dict[Pair, frozenset[str]] = {}

    def record(self, pair: Pair, fingerprint: str, paths: tuple[PathMeasurement, ...]) -> None:
        """What was measured, best first; nothing if no address answered."""
        self._links[pair] = SavedLink(*pair, fingerprint, paths)
        self._dead[pair] = frozenset()

    def begin_watch(self, pair: Pair) -> tuple[PathMeasurement, ...]:
        """What is known of a link, for it to be watched from now on: all of it counts as alive."""
        self._dead[pair] = frozenset()
        return self._links[pair].paths

    def note_dead(self, pair: Pair, dead: Iterable[str]) -> None:
        """These addresses do not answer now."""
        self._dead[pair] = frozenset(dead)

    def is_measured(self, pair: Pair, fingerprint: str, wall: float) -> bool:
        """Whether what is known of this pair still holds.

        Args:
            wall: Unix time, seconds.
        """
        link = self._links.get(pair)
        if link is None or link.fingerprint != fingerprint or not link.paths:
            return False
        return all(wall - path.measured_at < MAX_AGE_S for path in link.paths)

    def best(self, pair: Pair) -> PathMeasurement:
        """The best path that answers now.

        Raises:
            NoPathError: There is none.
        """
        link = self._links.get(pair)
        for path in link.paths if link is not None else ():
            if self.is_alive(pair, path.path.address):
                return path
        raise NoPathError("no address answers")

    def addresses(self, pair: Pair) -> tuple[str, ...]:
        """Those of the target that answer now, best first."""
        link = self._links.get(pair)
        known = [path.path.address for path in link.paths] if link is not None else []
        return tuple(address for address in known if self.is_alive(pair, address))

    def is_alive(self, pair: Pair, address: str) -> bool:
        """Whether an address was measured last time, and is not known to be dead since."""
        link = self._links.get(pair)
        known = {path.path.address for path in link.paths} if link is not None else set()
        return address in known - self._dead.get(pair, frozenset())

    def views(self) -> tuple[LinkView, ...]:
        """All links, for people and programs."""
        return tuple(
            LinkView(*pair, link.paths, tuple(sorted(self._dead.get(pair, ()))))
            for pair, link in sorted(self._links.items())
        )

    def encode(self) -> bytes:
        """Everything that outlives a run."""
        return msgspec.json.format(msgspec.json.encode(list(self._links.values())))


def decode_links(content: bytes) -> list[SavedLink]:
    """Raises: WireError when it is none of ours."""
    try:
        return msgspec.json.decode(content, type=list[SavedLink])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"no list of measured links: {error}") from error


def fingerprint(source: Iterable[Interface], target: Iterable[Interface]) -> str:
    """Of everything whose change asks for a new measurement."""
    ends = [
        [(i.name, i.kind, i.is_up, sorted(map(repr, i.addresses))) for i in end]
        for end in (source, target)
    ]
    return blake2b(repr(ends).encode(), digest_size=8).hexdigest()


class MeasureQueue:
    """Which links are to be measured, a node at most one at a time: two at once would measure each
    other."""

    def __init__(self) -> None:
        self._wanted: dict[Pair, None] = {}
        self._running: dict[Pair, float] = {}
        # Those without a way, and when they are measured again: from the next look on.
        self._wayless: dict[Pair, float | None] = {}

    def add(self, pair: Pair) -> None:
        """Have a link measured; once is enough."""
        if pair not in self._running:
            self._wanted[pair] = None

    def retry(self, pair: Pair) -> None:
        """No address answered: have it measured again after a while."""
        self._wayless[pair] = None

    def next(self, now: float) -> list[Pair]:
        """Links to measure now."""
        for pair, deadline in list(self._running.items()):
            if now > deadline:
                del self._running[pair]
        for pair, due in list(self._wayless.items()):
            if due is None:
                self._wayless[pair] = now + RETRY_S
            elif now >= due:
                self.add(pair)
        started = []
        for pair in list(self._wanted):
            busy = {node for running in self._running for node in running}
            if busy.isdisjoint(pair):
                del self._wanted[pair]
                self._wayless.pop(pair, None)
                self._running[pair] = now + MEASURE_TIMEOUT_S
                started.append(pair)
        return started

    def done(self, pair: Pair) -> None:
        """The answer has come."""
        self._running.pop(pair, None)

    def again(self, node_id: str) -> None:
        """A node may not have been told to measure, or its answer be lost."""
        lost = [pair for pair in self._running if pair[0] == node_id]
        for pair in lost:
            del self._running[pair]
        self._wanted = {**dict.fromkeys(lost), **self._wanted}

    def drop(self, node_id: str) -> None:
        """A node is gone, and what was to be measured with it."""
        self._wanted = {pair: None for pair in self._wanted if node_id not in pair}
        self._running = {p: until for p, until in self._running.items() if node_id not in p}
        self._wayless = {p: due for p, due in self._wayless.items() if node_id not in p}

    def is_waiting(self, nodes: Iterable[str]) -> bool:
        """Whether a link between two of these nodes is not measured yet."""
        among = set(nodes)
        return any(among.issuperset(pair) for pair in (*self._wanted, *self._running))
