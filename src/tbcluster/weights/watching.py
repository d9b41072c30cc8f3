"""Following what a neighbour has, while it fetches itself."""

import threading
import time
from collections.abc import Callable, Sequence

from tbcluster.checkpoint import Span
from tbcluster.errors import FetchError
from tbcluster.weights.agenda import Agenda
from tbcluster.weights.ledger import LedgerReader
from tbcluster.weights.neighbour import NeighbourClient

POLL_S = 0.2
IDLE_POLL_S = 2.0
# Asking for a long ledger must not take more of a neighbour's time than this part of it.
MAX_SHARE = 0.1
# A neighbour that does not answer for so long is lost,
SILENT_S = 15.0
# and one that answers and gets nothing new: its hub may be slow.
STALLED_S = 120.0

OnLost = Callable[[str, str], None]


class Watch:
    """Reads a neighbour's ledger again and again, and offers to the agenda what is in it.

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
            while not stopped.is_set():
                started = self._clock()
                if (why := self._look()) is not None:
                    self._on_lost(self._name, why)
                    return
                took = self._clock() - started
                with self._changed:
                    is_awaited = bool(self._agenda.awaited(self._name))
                stopped.wait(max(POLL_S if is_awaited else IDLE_POLL_S, took / MAX_SHARE))
        finally:
            self._client.close()

    def _look(self) -> str | None:
        """Why it is lost; None as long as it is not."""
        name, now = self._client.neighbour.name, self._clock()
        try:
            content = self._client.ledger() or b""
        except FetchError as error:
            return str(error) if self._clock() - self._answered_at > SILENT_S else None
        self._answered_at = self._clock()
        if len(content) < self._reader.position:  # its store has been emptied
            self._reader = LedgerReader()
        if self._reader.feed(content[self._reader.position :]):
            self._grew_at = now
        with self._changed:
            held = [piece for piece in self._agenda.wanted if self._has(piece)]
            if self._agenda.offer(self._name, held):
                self._changed.notify_all()
            is_awaited = bool(self._agenda.awaited(self._name))
        if is_awaited and now - self._grew_at > STALLED_S:
            return f"{name} has got nothing new for {STALLED_S:.0f} s"
        return None

    def _has(self, piece: Span) -> bool:
        holdings = self._reader.holdings
        return piece.file in holdings.lies or holdings.find(piece) is not None
