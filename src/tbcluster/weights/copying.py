"""Threads that copy pieces to the disk, from the hub and from neighbours, several at once."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tbcluster.checkpoint import Listing, Span
from tbcluster.errors import FetchError, ModelError, TbclusterError
from tbcluster.weights.agenda import Agenda, Run
from tbcluster.weights.assigning import HUB
from tbcluster.weights.hub import Hub
from tbcluster.weights.ledger import Piece
from tbcluster.weights.neighbour import NeighbourClient
from tbcluster.weights.store import Revision, writes
from tbcluster.weights.watching import Watch
from tbcluster.weights.writing import RunWriter, seal
from tbcluster.wire.errands import Neighbour

NUM_THREADS = 8
TICK_S = 0.2
# After a failure nobody waits longer for connections that are silent.
END_S = 2.0
# What a crash may cost: bytes and seconds of what arrived last. Others wait as long to copy it.
SEAL_BYTES = 64 * 1024**2
SEAL_S = 0.5
# Copies from a neighbour that fail one after another before it counts as lost.
MAX_TROUBLES = 4


class Sources:
    """Where pieces of one model can be had.

    Args:
        neighbours: Nodes that can be copied from.
        tls_files: What is shown to them.

    Attributes:
        received: Bytes that came from each; HUB for the hub.
        no_hub_because: Why there is no hub to ask; None where there is one.
    """

    def __init__(
        self,
        listing: Listing,
        hub: Hub,
        neighbours: Sequence[Neighbour] = (),
        tls_files: Sequence[str] = (),
    ) -> None:
        self.listing = listing
        self.hub = hub
        self.neighbours = {neighbour.node_id: neighbour for neighbour in neighbours}
        self.sizes = {file.path: file.size for file in listing.files}
        self.received: Counter[str] = Counter()
        self.no_hub_because = (
            f"{listing.source} is a folder, and no node that can be copied from has it"
            if Path(listing.source).is_absolute()
            else None
        )
        self._tls_files = tls_files

    def client(self, neighbour: str) -> NeighbourClient:
        """A connection of one's own."""
        return NeighbourClient(
            self.neighbours[neighbour], self.listing.model, self.listing.revision, self._tls_files
        )


class Copiers:
    """Has pieces on the disk and in the ledger. For a revision that is locked.

    Args:
        revision: Its files are there in parts.
        wanted: Pieces, and the source of each that is asked first.

    Raises:
        FetchError: A piece cannot be had from anywhere.
    """

    def __init__(self, revision: Revision, sources: Sources, wanted: Mapping[Span, str]) -> None:
        self._revision = revision
        self._sources = sources
        self._agenda = Agenda(wanted, sources.neighbours)
        if sources.no_hub_because is not None:
            self._agenda.lose(HUB, sources.no_hub_because)
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._landed: list[Piece] = []
        self._landed_bytes = 0
        self._troubles: Counter[str] = Counter()
        self._watches = {
            name: Watch(sources.client(name), self._agenda, name, self._changed, self._lose)
            for name in sources.neighbours
        }

    def run(self, on_tick: Callable[[], None]) -> None:
        """Return once all of them are here.

        Args:
            on_tick: Called several times a second meanwhile.

        Raises:
            FetchError: Something cannot be had from anywhere.
            DiskFullError: There is no room for it.
        """
        workers = [self._thread(self._work) for _ in range(NUM_THREADS)]
        for watch in self._watches.values():
            self._thread(partial(watch.run, self._stopped))
        sealer = self._thread(self._seal_on)
        try:
            with self._changed:
                while not self._agenda.is_done and self._failure is None:
                    self._changed.wait(TICK_S)
                    on_tick()
        finally:
            self._stopped.set()
            with self._changed:
                self._changed.notify_all()
            give_up = time.monotonic() + END_S
            for thread in workers:
                thread.join(max(0.0, give_up - time.monotonic()))
            # Nothing is noted in the ledger once the revision is not locked any more.
            sealer.join()
        if self._failure is not None:
            raise self._failure

    def _thread(self, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name="weights-copy", daemon=True)
        thread.start()
        return thread

    def _seal_on(self) -> None:
        """Sync and note what has landed, now and then and at the end."""
        try:
            is_last = False
            while not is_last:
                with self._changed:
                    self._changed.wait_for(self._is_seal_due, SEAL_S)
                    is_last = self._stopped.is_set()
                    landed, self._landed, self._landed_bytes = self._landed, [], 0
                seal(self._revision, landed)
        except Exception as error:  # a disk that is full, and what nobody thought of
            self._fail(error)

    def _is_seal_due(self) -> bool:
        return self._stopped.is_set() or self._landed_bytes >= SEAL_BYTES

    def _work(self) -> None:
        clients: dict[str, NeighbourClient] = {}
        try:
            while (run := self._next()) is not None:
                self._copy(run, clients)
        # What is said of the disk, and what nobody thought of: the fetch ends with it.
        except Exception as error:
            self._fail(error)
        finally:
            for client in clients.values():
                client.close()

    def _next(self) -> Run | None:
        with self._changed:
            while not self._stopped.is_set() and not self._agenda.is_done:
                run = self._agenda.take()
                if run is not None:
                    return run
                self._changed.wait(TICK_S)
        return None

    def _copy(self, run: Run, clients: dict[str, NeighbourClient]) -> None:
        is_there, problem = True, None
        expected = self._watches[run.source].expected(run.pieces) if run.source != HUB else {}
        path = self._revision.part(run.span.file)
        with writes(path), RunWriter(path, run.pieces, expected, self._land) as writer:
            try:
                is_there = self._stream(run, writer, clients)
            except (FetchError, ModelError) as error:
                problem = error
        with self._changed:
            try:
                if not is_there:
                    self._agenda.not_there(run)
                else:
                    self._agenda.ended(run, writer.bad)
                if problem is not None and writer.bad is None:
                    self._trouble(run.source, problem)
            finally:
                self._changed.notify_all()

    def _stream(self, run: Run, writer: RunWriter, clients: dict[str, NeighbourClient]) -> bool:
        def write(content: bytes | memoryview) -> None:
            if self._stopped.is_set():
                raise FetchError("the fetch was ended")
            writer.write(content)
            with self._changed:
                self._sources.received[run.source] += len(content)

        if run.source == HUB:
            listing, size = self._sources.listing, self._sources.sizes[run.span.file]
            for chunk in self._sources.hub.stream(listing.model, listing.revision, run.span, size):
                write(chunk)
            return True
        if run.source not in clients:
            clients[run.source] = self._sources.client(run.source)
        is_there = clients[run.source].copy(run.span, write)
        if is_there:
            self._troubles[run.source] = 0
        return is_there

    def _land(self, piece: Piece) -> None:
        with self._changed:
            self._landed.append(piece)
            self._landed_bytes += piece.length
            self._agenda.arrived([piece.span])
            if self._agenda.is_done or self._landed_bytes >= SEAL_BYTES:
                self._changed.notify_all()

    def _trouble(self, source: str, problem: TbclusterError) -> None:
        """The hub's client has tried often enough when it gives up; a neighbour's tries once."""
        self._troubles[source] += 1
        if source == HUB or self._troubles[source] >= MAX_TROUBLES:
            self._agenda.lose(source, str(problem))
        elif not self._stopped.is_set():
            self._changed.wait(TICK_S)

    def _lose(self, neighbour: str, why: str) -> None:
        try:
            with self._changed:
                self._agenda.lose(neighbour, why)
                self._changed.notify_all()
        except FetchError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()
