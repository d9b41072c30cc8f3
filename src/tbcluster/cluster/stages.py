"""The stage workers of one model: started, connected, watched, started again."""

import logging
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from tbcluster import errors
from tbcluster.cluster.places import COORDINATOR, Places, WorkerHandle
from tbcluster.core import StageRange
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
    StageSpec,
)

logger = logging.getLogger(__name__)


class StageState(StrEnum):
    """Where a stage worker stands."""

    FETCHING = "fetching"
    LOADING = "loading"
    READY = "ready"
    DEAD = "dead"


@dataclass(slots=True)
class StageStatus:
    """What is known of one stage, numbered through over all replicas; `node` is None where there is
    but one machine."""

    index: int
    layers: StageRange
    state: StageState = StageState.LOADING
    node: str | None = None
    replica: int = 0
    pid: int = 0
    loaded_bytes: int = 0
    total_bytes: int = 0
    memory_bytes: int = 0
    backend: str = ""
    note: str | None = None
    num_restarts: int = 0


@dataclass(frozen=True, slots=True)
class StageWork:
    """What the workers are to run.

    Attributes:
        models: Where each stage loads from, as in `StageSpec`.
        kv_bits: 8 or 4 for quantized KV caches.
        saved_folders: Where each stage keeps prefixes on disk; None for nowhere.
        is_looped: Whether the last stage sends to stage 0.
        replica, first_index: Which copy of the model they are, and how many stages those before it
            have: what people are told counts on from there.
    """

    models: Sequence[str]
    ranges: Sequence[StageRange]
    kv_bits: int | None = None
    saved_folders: Sequence[Path] | None = None
    is_looped: bool = False
    replica: int = 0
    first_index: int = 0

    def spec(self, stage: int, epoch: int) -> StageSpec:
        """Everything but what depends on the place."""
        saved = self.saved_folders
        return StageSpec(
            index=stage,
            num_stages=len(self.ranges),
            model=self.models[stage],
            layers=self.ranges[stage],
            epoch=epoch,
            inbound="",
            run_dir="",
            kv_bits=self.kv_bits,
            saved_folder=None if saved is None else str(saved[stage]),
        )

    def hops(self) -> list[tuple[int, int]]:
        """Who sends to whom."""
        last = len(self.ranges) - 1
        ring = [(COORDINATOR, 0), *((i, i + 1) for i in range(last)), (last, COORDINATOR)]
        return [*ring, (last, 0)] if self.is_looped else ring


@dataclass(frozen=True, slots=True)
class StageExited:
    """A worker ended; `what` says how, for people. `index` is that of its status."""

    index: int
    what: str

    def __str__(self) -> str:
        return f"stage {self.index} {self.what}"


@dataclass(frozen=True, slots=True)
class PathLost:
    """Messages do not arrive any more; the workers are well."""

    what: str

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class PathImproved:
    """There is a better way than one that is in use."""


Loss = StageExited | PathLost
News = Loss | PathImproved


@dataclass(frozen=True, slots=True)
class _Event:
    worker_id: int
    stage: int
    report: Report | str


class _WaysChanged:
    """Ways between machines have opened or closed."""


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
    """

    def __init__(
        self,
        work: StageWork,
        places: Places,
        sender: RoutedSender,
        results_port: int,
        on_progress: OnProgress = lambda _: None,
        on_loss: OnLoss = lambda _: None,
    ) -> None:
        self._work = work
        self._places = places
        self._sender = sender
        self._on_progress = on_progress
        self._on_loss = on_loss
        self._events: queue.SimpleQueue[_Event | _WaysChanged | PathLost | None] = (
            queue.SimpleQueue()
        )
        self._workers: dict[int, tuple[int, WorkerHandle]] = {}
        self._num_started = 0
        self._ended: set[int] = set()
        self._ports = {COORDINATOR: results_port}
        self._serial = 0
        self._routed: dict[int, int] = {}
        self._in_use: dict[tuple[int, int], Route] = {}
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
        worker_id = self._num_started
        self._num_started += 1
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
        if len(self._ports) <= len(self.statuses):
            return  # one that has not bound yet: this is called again when it has
        hops = self._work.hops()
        try:
            ways = {hop: self._places.route(*hop, self._ports[hop[1]]) for hop in hops}
        except NoPathError as error:
            logger.warning("%s; waiting for one", error)
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
            if isinstance(news, StageExited):
                raise StageError(f"{news} while it was loading")
            self.reroute()

    def next_news(
        self, *, until_ready: bool = False, timeout_s: float | None = None
    ) -> News | None:
        """Follow the workers until something has to be done. With `until_ready`: or until all are
        ready (None).

        Args:
            timeout_s: Look whether there is a better way after so many seconds in which nothing
                was heard.

        Raises:
            TbclusterError: A stage reports that it cannot be loaded, or `interrupt` was called.
        """
        while True:
            try:
                event = self._events.get(timeout=timeout_s)
            except queue.Empty:
                event = _WaysChanged()
            if event is None:
                raise StageError("the stages were stopped")
            news = self._take(event)
            if until_ready:
                news = None if isinstance(news, PathImproved) else news
                if news is None and self._all_ready():
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
        """Stages whose worker has ended and was not started again, told by `next_news` or not yet.
        Thread-safe."""
        workers = list(self._workers.items())
        return [stage for stage, (worker_id, _) in workers if worker_id in self._ended]

    def lose_step(self, step_id: int) -> None:
        """A step did not arrive, though its way is open again by now. Thread-safe."""
        self._lose(PathLost(f"step {step_id} was lost between two stages"))

    def is_broken(self) -> bool:
        """Whether a worker has ended or a way was cut, and that is not mended. Thread-safe."""
        return bool(self.dead_stages()) or self._cut_hop() is not None

    def close(self) -> None:
        """End all workers."""
        workers = [worker for _, worker in self._workers.values()]
        for worker in workers:
            worker.ask_to_stop()
        for worker in workers:
            worker.join()
        self._workers.clear()

    def _exited(self, event: _Event, what: str) -> None:
        # First: what is begun after the loss was told must be able to see it.
        self._ended.add(event.worker_id)
        self._on_loss(StageExited(self._index(event.stage), what))
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
        self._events.put(lost)

    def _cut_hop(self) -> tuple[int, int] | None:
        in_use = self._in_use.items()
        cut = (hop for hop, route in in_use if not self._places.is_open(*hop, route))
        return next(cut, None)

    def _take(self, event: _Event | _WaysChanged | PathLost) -> News | None:
        match event:
            case PathLost():
                return event
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

    def _note(self, stage: int, worker: WorkerHandle, report: Report | str) -> StageExited | None:
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
                raise error_of_kind(kind, f"stage {status.index}: {message}")
            case str():
                status.state = StageState.DEAD
                return StageExited(status.index, report)
        return None

    def _all_ready(self) -> bool:
        """Whether all are loaded, and connected as they were last told to be."""
        return bool(self._in_use) and all(
            status.state is StageState.READY and self._routed.get(stage) == self._serial
            for stage, status in enumerate(self.statuses)
        )

    def _index(self, stage: int) -> int:
        return self._work.first_index + stage

    def _words(self, stage: int) -> str:
        return "the coordinator" if stage == COORDINATOR else f"stage {self._index(stage)}"


def error_of_kind(kind: str, message: str) -> TbclusterError:
    """The error that a worker process reported by the name of its class."""
    error_class = getattr(errors, kind, None)
    if not (isinstance(error_class, type) and issubclass(error_class, TbclusterError)):
        return StageError(f"{kind}: {message}")
    return error_class(message)
