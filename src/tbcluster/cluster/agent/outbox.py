"""What is said of workers, kept until the coordinator has heard it. Pure.

Numbers count up from 1 for each coordinator (incarnation). A beat of the coordinator says how far
it has heard; after a new connection all later ones are sent again, in their order.
"""

from collections import deque

import msgspec

from tbcluster.wire.rack import WorkerEnded, WorkerSaid, WorkerStarted

OfWorker = WorkerSaid | WorkerStarted | WorkerEnded


class Outbox:
    """Numbers what is said, and remembers it."""

    def __init__(self) -> None:
        self._unheard: deque[OfWorker] = deque()
        self._serial = 0

    def add(self, message: OfWorker) -> OfWorker:
        """The message with its number."""
        self._serial += 1
        numbered = msgspec.structs.replace(message, serial=self._serial)
        self._unheard.append(numbered)
        return numbered

    def heard(self, serial: int) -> None:
        """The coordinator has all up to this number."""
        while self._unheard and self._unheard[0].serial <= serial:
            self._unheard.popleft()

    def unheard(self) -> tuple[OfWorker, ...]:
        """All that it may not have, in order."""
        return tuple(self._unheard)

    def begin(self) -> None:
        """Another coordinator is there, which nothing of this concerns."""
        self._unheard.clear()
        self._serial = 0
