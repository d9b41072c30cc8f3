"""Lets the other nodes copy this one's weights: keeps the process running that serves them."""

import logging
import threading
from collections.abc import Callable, Iterable

from tbcluster.cluster.agent.errands import Errands
from tbcluster.cluster.agent.site import Site
from tbcluster.cluster.supervisor import Worker
from tbcluster.errors import StageError
from tbcluster.wire.control import Bound, Failed, Report
from tbcluster.wire.errands import Accepted, ShareSpec

logger = logging.getLogger(__name__)

MODULE = "tbcluster.weights.serving"
# One that ends at once each time is not started faster than this.
RESTART_S = 1.0


class Sharing:
    """Runs from the beginning until `close`; all work is done in a thread of its own.

    Args:
        on_port: Called there with the port at which weights can be copied, whenever it is another.
    """

    def __init__(self, site: Site, on_port: Callable[[int], None], module: str = MODULE) -> None:
        self._site = site
        self._on_port = on_port
        self._module = module
        self._worker: Worker | None = None
        self._port = 0
        self._accepted = Accepted(())
        self._complaint = ""
        self._is_closing = threading.Event()
        self._errands = Errands("sharing")
        self._errands.do(self._start)

    def accept(self, certificates: Iterable[str]) -> None:
        """Those who show one of these may copy, nobody else. Thread-safe."""
        accepted = Accepted(tuple(sorted(filter(None, certificates))))
        self._errands.do(lambda: self._tell(accepted))

    def close(self) -> None:
        """End it, and wait until it has ended."""
        self._is_closing.set()
        self._errands.do(self._stop)
        self._errands.close()

    def _start(self) -> None:
        if self._is_closing.is_set():
            return
        site = self._site
        try:
            site.prepare()
            spec = ShareSpec(str(site.store), site.tls_files, self._port)
            self._worker = Worker(self._module, spec, self._hear, self._ended)
        except (StageError, OSError) as error:
            self._complain(str(error))
            self._errands.do(self._start_later)
            return
        self._worker.accept(self._accepted)

    def _start_later(self) -> None:
        self._is_closing.wait(RESTART_S)
        self._start()

    def _tell(self, accepted: Accepted) -> None:
        if accepted != self._accepted:
            self._accepted = accepted
            if self._worker is not None:
                self._worker.accept(accepted)

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()

    # In the thread that reads what it says

    def _hear(self, report: Report) -> None:
        match report:
            case Bound(port=port) if port != self._port:
                self._port = port
                self._on_port(port)
            case Failed(message=message):
                self._complain(message)

    def _ended(self, what: str) -> None:
        self._complain(f"their server {what}")
        self._errands.do(self._start_later)

    def _complain(self, problem: str) -> None:
        if problem != self._complaint and not self._is_closing.is_set():
            logger.warning("other nodes cannot copy weights from this one: %s", problem)
        self._complaint = problem
