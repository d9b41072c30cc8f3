"""What one node runs for this coordinator. Pure: `Attendance` asks, and says what follows."""

from dataclasses import dataclass

from tbcluster.cluster.rack.actions import MakeSpec
from tbcluster.wire.control import Report, Routed
from tbcluster.wire.rack import (
    AgentBeat,
    FreeWorker,
    RouteWorker,
    StopWorker,
    WorkerEnded,
    WorkerSaid,
    WorkerStarted,
)

# A worker that its agent does not name so long after it was to be started was never heard of.
START_GRACE_S = 5.0

Order = RouteWorker | StopWorker | FreeWorker
OfWorker = WorkerSaid | WorkerStarted | WorkerEnded


@dataclass(slots=True)
class _Worker:
    # None once its agent has named it.
    asked_at: float | None
    # What it was told last and has not done yet, and over which connection.
    order: Order | None = None
    told_over: bytes = b""

    def has_said(self, report: Report) -> None:
        order = self.order
        if isinstance(order, RouteWorker) and report == Routed(order.routes.serial):
            self.order = None


class NodeWorkers:
    """All workers of one node, by id: those that wait for it, and those it was told to start."""

    def __init__(self) -> None:
        self._running: dict[str, _Worker] = {}
        self._waiting: dict[str, MakeSpec] = {}
        # Given up with the node's lease; the agent may run them still.
        self._lost: list[str] = []
        # Serial of what was heard last of them.
        self.heard_serial = 0

    def wait(self, worker_id: str, make_spec: MakeSpec) -> None:
        """One is to be started when the node is there."""
        self._waiting[worker_id] = make_spec

    def waiting(self) -> dict[str, MakeSpec]:
        """Those that wait, who do so no longer."""
        waiting, self._waiting = self._waiting, {}
        return waiting

    def cancel(self, worker_id: str) -> bool:
        """Whether this one waited; it does no longer."""
        return self._waiting.pop(worker_id, None) is not None

    def start(self, worker_id: str, now: float) -> None:
        """The node is told to start one."""
        self._running[worker_id] = _Worker(now)

    def lose(self) -> list[str]:
        """The node is not there any more: those that it ran."""
        lost = list(self._running)
        self._running.clear()
        self._lost += lost
        return lost

    def take_lost(self) -> list[str]:
        """Those that were lost and that the agent may run still; they are told once."""
        lost, self._lost = self._lost, []
        return lost

    def begin(self) -> None:
        """The agent was started again: it runs nothing of all that, and counts from 1."""
        self._lost, self.heard_serial = [], 0

    def order(self, order: Order, peer: bytes) -> bool:
        """Whether a worker is to be told this now, over this connection."""
        worker = self._running.get(order.worker_id)
        # What is to end needs no routes.
        if worker is None or isinstance(worker.order, StopWorker | FreeWorker):
            return False
        worker.order, worker.told_over = order, peer
        return True

    def heard(self, message: OfWorker) -> Report | WorkerStarted | str | None:
        """What is news in this; how it ended is a text."""
        # What is not the next was heard before, or is said again after what was missed before it.
        if message.serial != self.heard_serial + 1:
            return None
        self.heard_serial += 1
        worker = self._running.get(message.worker_id)
        if worker is None:
            return None
        match message:
            case WorkerSaid(report=report):
                worker.has_said(report)
                return report
            case WorkerStarted():
                return message
            case WorkerEnded(what=what):
                del self._running[message.worker_id]
                return what

    def orders(self, beat: AgentBeat, peer: bytes) -> list[Order]:
        """What the agent is to be told, given what it names: what may have been lost with another
        connection; and that nobody uses a worker, which another plan still may."""
        orders: list[Order] = []
        for worker_id in beat.workers:
            worker = self._running.get(worker_id)
            if worker is None:
                orders.append(FreeWorker(worker_id))
                continue
            worker.asked_at = None
            if worker.order is not None and worker.told_over != peer:
                worker.told_over = peer
                orders.append(worker.order)
        return orders

    def missed(self, beat: AgentBeat, now: float) -> list[str]:
        """Those that the agent should name and does not, which are gone."""
        gone = [
            worker_id
            for worker_id, worker in self._running.items()
            if worker_id not in beat.workers
            and (worker.asked_at is None or now - worker.asked_at > START_GRACE_S)
        ]
        for worker_id in gone:
            del self._running[worker_id]
        return gone
