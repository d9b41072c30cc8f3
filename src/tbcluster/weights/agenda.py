"""Which pieces are still to be fetched, and where from. Pure: no I/O, no clock, no thread."""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from tbcluster.checkpoint import Span
from tbcluster.errors import FetchError
from tbcluster.weights.assigning import HUB

# One request asks for so much at most, of adjacent pieces.
MAX_RUN_BYTES = 64 * 1024**2
MIN_RUN_BYTES = 4 * 1024**2
# Requests to one source at once.
MAX_RUNS = 6


class Run(NamedTuple):
    """Adjacent pieces of a file, and where they come from."""

    source: str
    pieces: tuple[Span, ...]

    @property
    def span(self) -> Span:
        """All of it."""
        first, last = self.pieces[0], self.pieces[-1]
        return Span(first.file, first.offset, last.end - first.offset)


class Agenda:
    """Pieces move from `waiting` (for a neighbour to have them) to `ready`, to `running`, and away.

    Args:
        sources: Of each piece, the one to come from first.
        neighbours: Those that can be copied from; a source that is neither one of them nor the hub
            is replaced at once.
    """

    def __init__(self, sources: Mapping[Span, str], neighbours: Collection[str]) -> None:
        self._neighbours = set(neighbours)
        self._lost: dict[str, str] = {}
        self._offered: defaultdict[str, set[Span]] = defaultdict(set)
        self._denied: defaultdict[Span, set[str]] = defaultdict(set)
        self._failed: defaultdict[Span, set[str]] = defaultdict(set)
        self._waiting: defaultdict[str, set[Span]] = defaultdict(set)
        self._ready: defaultdict[str, list[Span]] = defaultdict(list)
        self._running: dict[Span, str] = {}
        self._runs: Counter[str] = Counter()
        self._left = sum(piece.length for piece in sources)
        self._of: defaultdict[str, list[Span]] = defaultdict(list)
        for piece in sorted(sources):
            self._of[piece.file].append(piece)
            source = sources[piece]
            self._put(piece, source if source in {HUB, *self._neighbours} else self._other(piece))

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self._left == 0 and not self._running

    def awaited(self, neighbour: str) -> frozenset[Span]:
        """What it has been asked for and does not have yet."""
        return frozenset(self._waiting[neighbour])

    def is_lost(self, source: str) -> bool:
        """Whether it cannot be used any more."""
        return source in self._lost

    def all_of(self, file: str) -> tuple[Span, ...]:
        """All pieces of a file, whether they are here by now or not."""
        return tuple(self._of.get(file, ()))

    def offer(self, neighbour: str, pieces: Iterable[Span]) -> bool:
        """It has these; whether any of them was waited for, of it or of another one."""
        if neighbour in self._lost:
            return False
        offered = set(pieces)
        self._offered[neighbour] |= offered
        arrived: set[Span] = set()
        for waiting in self._waiting.values():
            usable = {piece for piece in waiting & offered if neighbour not in self._failed[piece]}
            waiting -= usable
            arrived |= usable
        for piece in sorted(arrived):
            insort(self._ready[neighbour], piece)
        return bool(arrived)

    def take(self) -> Run | None:
        """What to ask for next; None for nothing at the moment."""
        sources = [
            source
            for source, ready in self._ready.items()
            if ready and self._runs[source] < MAX_RUNS
        ]
        if not sources:
            return None
        source = min(sources, key=lambda name: (self._runs[name], name))
        pieces = self._take_run(self._ready[source])
        self._runs[source] += 1
        self._running |= dict.fromkeys(pieces, source)
        return Run(source, tuple(pieces))

    def arrived(self, pieces: Iterable[Span]) -> None:
        """They are here."""
        for piece in pieces:
            del self._running[piece]
            self._left -= piece.length

    def ended(self, run: Run, bad: Span | None = None) -> None:
        """Nothing more comes of a run: what did not arrive goes back.

        Args:
            bad: This piece was wrong: it comes from another source.

        Raises:
            FetchError: There is no other source.
        """
        self._runs[run.source] -= 1
        for piece in run.pieces:
            if self._running.get(piece) != run.source:
                continue
            del self._running[piece]
            if piece == bad:
                self._failed[piece].add(run.source)
            self._put(piece, self._other(piece) if piece == bad else run.source)

    def not_there(self, run: Run) -> None:
        """It says that it does not have them, though it had offered them: a file may get its name
        at that moment. Said twice of a piece, it comes from another source.

        Raises:
            FetchError: There is no other source.
        """
        self._runs[run.source] -= 1
        for piece in run.pieces:
            del self._running[piece]
            if run.source in self._denied[piece]:
                self._failed[piece].add(run.source)
            self._denied[piece].add(run.source)
            has_failed = run.source in self._failed[piece]
            self._put(piece, self._other(piece) if has_failed else run.source)

    def lose(self, source: str, why: str) -> None:
        """A source that cannot be used any more; what it was to give comes from others.

        Raises:
            FetchError: There is no other source.
        """
        if source in self._lost:
            return
        self._lost[source] = why
        pieces = [*self._waiting.pop(source, ()), *self._ready.pop(source, ())]
        for piece in sorted(pieces):
            self._put(piece, self._other(piece))

    def _put(self, piece: Span, source: str) -> None:
        if source in self._lost:
            source = self._other(piece)
        if source == HUB or piece in self._offered[source]:
            insort(self._ready[source], piece)
        else:
            self._waiting[source].add(piece)

    def _other(self, piece: Span) -> str:
        """A neighbour that has it, else the hub, else a neighbour that may have it one day."""
        usable = [
            name
            for name in sorted(self._neighbours)
            if name not in self._lost and name not in self._failed[piece]
        ]
        offering = [name for name in usable if piece in self._offered[name]]
        if offering:
            return min(offering, key=lambda name: (len(self._ready[name]), name))
        if HUB not in self._lost and HUB not in self._failed[piece]:
            return HUB
        if usable:
            return usable[0]
        reasons = "; ".join(dict.fromkeys(self._lost.values())) or "no node has the right bytes"
        raise FetchError(f"{piece.file} cannot be had from anywhere: {reasons}")

    def _take_run(self, ready: list[Span]) -> list[Span]:
        """Short where little is left, so that all connections have something to do."""
        limit = min(MAX_RUN_BYTES, max(MIN_RUN_BYTES, self._left // (2 * MAX_RUNS)))
        num_pieces, size = 1, ready[0].length
        while num_pieces < len(ready):
            last, following = ready[num_pieces - 1], ready[num_pieces]
            size += following.length
            if (last.file, last.end) != (following.file, following.offset) or size > limit:
                break
            num_pieces += 1
        taken = ready[:num_pieces]
        del ready[:num_pieces]
        return taken
