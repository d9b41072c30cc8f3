"""Following what a neighbour has, while it fetches itself."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from tbcluster.checkpoint import Span
from tbcluster.errors import FetchError
from tbcluster.weights.agenda import Agenda
from tbcluster.weights.assigning import HUB
from tbcluster.weights.ledger import Entry, LedgerReader, Lies, Piece
from tbcluster.weights.neighbour import NeighbourClient

POLL_S = 0.2
IDLE_POLL_S = 2.0
# A neighbour that does not answer for so long is lost,
SILENT_S = 15.0
# and one that answers and gets nothing new: its hub may be slow,
STALLED_S = 120.0
# but what was to come from the hub here, and cannot, nobody else may be fetching.
STALLED_WITHOUT_HUB_S = 20.0

OnLost = Callable[[str, str], None]


class Watch:
    """Reads what is new in a neighbour's ledger again and again, and offers it to the agenda.

    Args:
        changed: Guards the agenda.
        on_lost: Called with the neighbour and why, without `changed`.
    """

    def __init__(
        self,
        client: NeighbourClient,
        agenda: Agenda,
        name: str,
        changed: threading.Condition,
        on_lost: OnLost,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._agenda = agenda
        self._name = name
        self._changed = changed
        self._on_lost = on_lost
        self._clock = clock
        self._reader = LedgerReader()
        self._answered_at = self._grew_at = clock()

    def expected(self, pieces: Sequence[Span]) -> dict[Span, str]:
        """The hashes that these pieces have there; none of files that are not the store's own,
        whose bytes nobody has hashed."""
        found = {piece: self._reader.holdings.find(piece) for piece in pieces}
        return {piece: entry.sha256 for piece, entry in found.items() if entry is not None}

    def run(self, stopped: threading.Event) -> None:
        """Until that is set, or the neighbour is lost."""
        try:
            while not (stopped.is_set() or self._agenda.is_lost(self._name)):
                if (why := self._look()) is not None:
                    self._on_lost(self._name, why)
                    return
                with self._changed:
                    is_awaited = bool(self._agenda.awaited(self._name))
                stopped.wait(POLL_S if is_awaited else IDLE_POLL_S)
        finally:
            self._client.close()

    def _look(self) -> str | None:
        """Why it is lost; None as long as it is not."""
        name, now = self._client.neighbour.name, self._clock()
        try:
            content = self._client.ledger(self._reader.position)
        except FetchError as error:
            return str(error) if self._clock() - self._answered_at > SILENT_S else None
        self._answered_at = self._clock()
        if content is None:  # its store has been emptied, or it has nothing yet
            self._reader, content = LedgerReader(), b""
        entries = self._reader.feed(content)
        if entries:
            self._grew_at = now
        with self._changed:
            if self._agenda.offer(self._name, self._held(entries)):
                self._changed.notify_all()
            is_awaited = bool(self._agenda.awaited(self._name))
            patience_s = STALLED_WITHOUT_HUB_S if self._agenda.is_lost(HUB) else STALLED_S
        if is_awaited and now - self._grew_at > patience_s:
            return f"{name} has got nothing new for {patience_s:.0f} s"
        return None

    def _held(self, entries: Iterable[Entry]) -> Iterator[Span]:
        """Pieces that these entries speak of, as far as no later one says otherwise."""
        holdings = self._reader.holdings
        for entry in entries:
            match entry:
                case Piece(span=span) if holdings.find(span) is not None:
                    yield span
                case Lies(file=file) if file in holdings.lies:
                    yield from self._agenda.all_of(file)
