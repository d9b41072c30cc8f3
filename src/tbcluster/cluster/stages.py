"""The stage workers of one model: started, connected, watched, started again."""

import logging
import queue
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from itertools import count

from tbcluster import errors
from tbcluster.cluster.news import (
    ExaminationDue,
    Examined,
    Loss,
    News,
    NodesChanged,
    PathImproved,
    PathLost,
    StageBroken,
    StageExited,
)
from tbcluster.cluster.places import COORDINATOR, Places, WorkerHandle
from tbcluster.cluster.stage_status import StageState, StageStatus
from tbcluster.cluster.stage_work import StageWork
from tbcluster.errors import NoPathError, StageError, TbclusterError
from tbcluster.transport.zeromq import RoutedSender
from tbcluster.wire.control import (
    Bound,
    Failed,
    Loading,
    Ready,
    Report,
    Route,
    Routed,
    Routes,
)

logger = logging.getLogger(__name__)

# No two workers of this process have the same number.
_worker_ids = count()


@dataclass(frozen=True, slots=True)
class _Event:
    worker_id: int
    stage: int
    report: Report | str


class _WaysChanged:
    """Ways between machines have opened or closed."""


@dataclass(frozen=True, slots=True)
class _Lost:
    """What a set of stages lost while it was connected as its `serial` says."""

    owner: "StageSet"
    serial: int
    lost: PathLost


# What comes in for those who look after the stages of a replica, of whichever plan they are.
Inbox = queue.SimpleQueue[
    _Event | _WaysChanged | _Lost | NodesChanged | Examined | ExaminationDue | None
]
OnProgress = Callable[[list[StageStatus]], None]
OnLoss = Callable[[Loss], None]


class StageSet:
    """One worker for each range of layers.

    Args:
        sender: The coordinator's, to stage 0: it is routed here.
        results_port: What the coordinator has bound for results; 0 where that has no port.
        on_progress: Called with the state of all stages whenever one of them changes.
        on_loss: Called at once when a worker ends or a way closes, in a thread of its own;
            `next_news` tells the same to whoever follows the stages.
        inbox: Where the workers' news are queued; those of workers that another set has started are
            passed over.
    """

    def __init__(
        self,
        work: StageWork,
        places: Places,
        sender: RoutedSender,
        results_port: int,
        on_progress: OnProgress = lambda _: None,
        on_loss: OnLoss = lambda _: None,
        inbox: Inbox | None = None,
    ) -> None:
        self._work = work
        self._places = places
        self._sender = sender
        self._on_progress = on_progress
        self._on_loss = on_loss
        self._events: Inbox = inbox if inbox is not None else queue.SimpleQueue()
        self._workers: dict[int, tuple[int, WorkerHandle]] = {}
        self._ended: set[int] = set()
        self._ports = {COORDINATOR: results_port}
        self._serial = 0
        self._routed: dict[int, int] = {}
        self._in_use: dict[tuple[int, int], Route] = {}
        # As of which serial a step or a way was lost.
        self._lost_serial: int | None = None
        # Where the way that is waited for leads to.
        self.unreachable: str | None = None
        # When anything was heard last, as `time.monotonic` says.
        self.heard_at = time.monotonic()
        self.statuses = [
            StageStatus(self._index(stage), layers, node=places.name(stage), replica=work.replica)
            for stage, layers in enumerate(work.ranges)
        ]
        places.follow(self._ways_changed)

    def start(self, stage: int, epoch: int) -> None:
        """Start the worker of one stage (again)."""
        status = self.statuses[stage]
        status.state, status.loaded_bytes, status.pid = StageState.LOADING, 0, 0
        self._ports.pop(stage, None)
        self._routed.pop(stage, None)
        worker_id = next(_worker_ids)
        worker = self._places.launch(
            self._work.spec(stage, epoch),
            lambda report: self._events.put(_Event(worker_id, stage, report)),
            lambda what: self._exited(_Event(worker_id, stage, what), what),
        )
        self._workers[stage] = (worker_id, worker)
        status.pid = worker.pid

    def reroute(self) -> None:
        """Connect all anew, along the best ways that are open now; `next_news` with `until_ready`
        says when that is done. Where there is none it waits for one."""
        self._in_use = {}
        self.unreachable = None
        if len(self._ports) <= len(self.statuses):
            return  # one that has not bound yet: this is called again when it has
        hops = self._work.hops()
        ways: dict[tuple[int, int], Route] = {}
        for hop in hops:
            try:
                ways[hop] = self._places.route(*hop, self._ports[hop[1]])
            except NoPathError as error:
                logger.warning("%s; waiting for one", error)
                far = hop[0] if hop[1] == COORDINATOR else hop[1]
                self.unreachable = self._places.name(far)
                return
        self._serial += 1
        last = len(self.statuses) - 1
        for stage, (_, worker) in self._workers.items():
            onward = ways.get((stage, (stage + 1) % len(self.statuses)))
            results = ways[stage, COORDINATOR] if stage == last else None
            worker.route(Routes(self._serial, onward, results))
        self._sender.route(ways[COORDINATOR, 0])
        self._in_use = ways

    def await_ready(self) -> None:
        """Wait until every stage takes steps.

        Raises:
            TbclusterError: A stage cannot be loaded, died, or `interrupt` was called.
        """
        while (news := self.next_news(until_ready=True)) is not None:
            match news:
                case StageExited():
                    raise StageError(f"{news} while it was loading")
                case StageBroken(error=error):
                    raise error
                case PathLost():
                    self.reroute()

    def next_news(
        self, *, until_ready: bool = False, timeout_s: float | None = None
    ) -> News | None:
        """Follow the workers until something has to be done, or the time is up (None). With
        `until_ready`: or until all are ready (None, and `is_ready`).

        Raises:
            StageError: `interrupt` was called.
        """
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if give_up is None else max(0.0, give_up - time.monotonic())
            try:
                event = self._events.get(timeout=left_s)
            except queue.Empty:
                return None
            self.heard_at = time.monotonic()
            if event is None:
                raise StageError("the stages were stopped")
            news = self._take(event)
            if until_ready:
                news = None if isinstance(news, PathImproved) else news
                if news is None and self.is_ready():
                    return None
            if news is not None:
                return news

    def snapshot(self) -> tuple[StageStatus, ...]:
        """The state of all stages, with the names that their nodes have now."""
        return tuple(
            replace(status, node=self._places.name(stage))
            for stage, status in enumerate(self.statuses)
        )

    def is_better_way(self) -> bool:
        """Whether some messages could take a better way than they do."""
        try:
            return any(
                self._places.route(*hop, self._ports[hop[1]]) != route
                for hop, route in self._in_use.items()
            )
        except (NoPathError, KeyError):
            return False

    def interrupt(self) -> None:
        """Make `next_news` raise. Thread-safe."""
        self._events.put(None)

    def dead_stages(self) -> list[int]:
        """Stages whose worker was left or has ended, told by `next_news` or not yet.
        Thread-safe."""
        workers = dict(self._workers)
        return [
            stage
            for stage in range(len(self.statuses))
            if stage not in workers or workers[stage][0] in self._ended
        ]

    def lose_step(self, step_id: int) -> None:
        """A step did not arrive, though its way is open again by now. Thread-safe."""
        self._lose(PathLost(f"step {step_id} was lost between two stages"))

    def is_broken(self) -> bool:
        """Whether a worker has ended, a way was cut or a step was lost, and that is not mended.
        Thread-safe."""
        has_lost = self._lost_serial == self._serial
        return has_lost or bool(self.dead_stages()) or self._cut_hop() is not None

    def stop(self, stages: Container[int]) -> None:
        """End the workers of these stages, which count as dead then."""
        _end([worker for stage, (_, worker) in self._workers.items() if stage in stages])

    def leave(self, kept: Container[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
        """End all workers but those that are ready and whose node and shard are `kept`, which stay
        loaded for another set of stages.

        Returns:
            Node and shard of those.
        """
        freed: list[WorkerHandle] = []
        ended: list[WorkerHandle] = []
        left: list[tuple[str | None, str]] = []
        # A copy: another thread may be starting them.
        workers = list(self._workers.items())
        # First: from now on their ends are no losses, nor is what happens to their ways.
        self._workers.clear()
        self._in_use = {}
        for stage, (_, worker) in workers:
            shard = self._work.spec(stage, 0).shard
            place = self._places.name(stage), shard
            if shard and place in kept and self.statuses[stage].state is StageState.READY:
                freed.append(worker)
                left.append(place)
            else:
                ended.append(worker)
        for worker in freed:
            worker.free()
        _end(ended)
        return left

    def is_ready(self) -> bool:
        """Whether all are loaded, and connected as they were last told to be."""
        return bool(self._in_use) and all(
            status.state is StageState.READY and self._routed.get(stage) == self._serial
            for stage, status in enumerate(self.statuses)
        )

    def _ended_stage(self, stage: int, what: str) -> StageExited:
        return StageExited(self._index(stage), what, self._places.name(stage))

    def close(self) -> None:
        """End all workers."""
        self.leave(())

    def _exited(self, event: _Event, what: str) -> None:
        # First: what is begun after the loss was told must be able to see it.
        self._ended.add(event.worker_id)
        worker = self._workers.get(event.stage)
        # Nobody would let requests go on again after the end of one that was replaced.
        if worker is not None and worker[0] == event.worker_id:
            self._on_loss(self._ended_stage(event.stage, what))
        self._events.put(event)

    def _ways_changed(self) -> None:
        hop = self._cut_hop()
        if hop is None:
            self._events.put(_WaysChanged())
            return
        source, target = (self._words(end) for end in hop)
        self._lose(PathLost(f"the way from {source} to {target} is cut"))

    def _lose(self, lost: PathLost) -> None:
        self._on_loss(lost)
        self._lost_serial = serial = self._serial
        self._events.put(_Lost(self, serial, lost))

    def _cut_hop(self) -> tuple[int, int] | None:
        in_use = self._in_use.items()
        cut = (hop for hop, route in in_use if not self._places.is_open(*hop, route))
        return next(cut, None)

    def _take(
        self, event: _Event | _WaysChanged | _Lost | NodesChanged | Examined | ExaminationDue
    ) -> News | None:
        match event:
            case _Lost(owner, serial, lost):
                # Whatever was lost before the last time that all were connected is no loss now.
                return lost if owner is self and serial == self._serial else None
            case _WaysChanged():
                if not self._in_use:
                    self.reroute()
                return PathImproved() if self.is_better_way() else None
            case _Event(worker_id, stage, report):
                worker = self._workers.get(stage)
                if worker is None or worker[0] != worker_id:
                    return None  # the last words of a worker that was replaced
                news = self._note(stage, worker[1], report)
                self._on_progress(self.statuses)
                return news
            case _:
                return event

    def _note(
        self, stage: int, worker: WorkerHandle, report: Report | str
    ) -> StageExited | StageBroken | None:
        status = self.statuses[stage]
        match report:
            case Bound(port=port):
                status.pid = worker.pid
                self._ports[stage] = port
                self.reroute()
            case Routed(serial=serial):
                self._routed[stage] = serial
            case Loading(loaded_bytes=loaded, total_bytes=total):
                status.loaded_bytes, status.total_bytes = loaded, total
            case Ready(memory_bytes=memory, backend=backend, note=note):
                status.state = StageState.READY
                status.memory_bytes, status.backend, status.note = memory, backend, note
            case Failed(kind=kind, message=message):
                error = error_of_kind(kind, f"stage {status.index}: {message}")
                return StageBroken(error, self._places.name(stage))
            case str():
                status.state = StageState.DEAD
                return self._ended_stage(stage, report)
        return None

    def _index(self, stage: int) -> int:
        return self._work.first_index + stage

    def _words(self, stage: int) -> str:
        return "the coordinator" if stage == COORDINATOR else f"stage {self._index(stage)}"


def _end(workers: list[WorkerHandle]) -> None:
    for worker in workers:
        worker.ask_to_stop()
    for worker in workers:
        worker.join()


def error_of_kind(kind: str, message: str) -> TbclusterError:
    """The error that a worker process reported by the name of its class."""
    error_class = getattr(errors, kind, None)
    if not (isinstance(error_class, type) and issubclass(error_class, TbclusterError)):
        return StageError(f"{kind}: {message}")
    return error_class(message)
