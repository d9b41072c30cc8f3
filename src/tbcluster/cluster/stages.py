"""The stage workers of one model on this machine: started, watched, started again."""

import queue
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tbcluster import errors
from tbcluster.cluster.supervisor import Worker, describe_exit
from tbcluster.core import StageRange
from tbcluster.errors import StageError, TbclusterError
from tbcluster.wire.control import Failed, Loading, Ready, Report, StageSpec

# sockaddr_un holds 104 bytes on macOS.
MAX_SOCKET_PATH = 100
SOCKET_NAME_LENGTH = len("/tbcluster-12345678/results")


class StageState(StrEnum):
    """Where a stage worker stands."""

    LOADING = "loading"
    READY = "ready"
    DEAD = "dead"


@dataclass(slots=True)
class StageStatus:
    """What is known of one stage."""

    index: int
    layers: StageRange
    state: StageState = StageState.LOADING
    pid: int = 0
    loaded_bytes: int = 0
    total_bytes: int = 0
    memory_bytes: int = 0
    backend: str = ""
    note: str | None = None
    num_restarts: int = 0


@dataclass(frozen=True, slots=True)
class StageExited:
    """A worker ended; `what` says how, for people."""

    stage: int
    what: str


@dataclass(frozen=True, slots=True)
class _Event:
    worker_id: int
    stage: int
    report: Report | int


OnProgress = Callable[[list[StageStatus]], None]
OnLoss = Callable[[StageExited], None]


class StageSet:
    """One worker for each range of layers, connected over ipc sockets in a private folder.

    Args:
        kv_bits: 8 or 4 for quantized KV caches.
        saved_folders: Where each stage keeps prefixes on disk; None for nowhere.
        on_progress: Called with the state of all stages whenever one of them changes.
        on_loss: Called at once when a worker ends, in a thread of its own; `next_exit` tells the
            same to whoever follows the stages.
    """

    def __init__(
        self,
        model_path: Path,
        ranges: Sequence[StageRange],
        on_progress: OnProgress,
        on_loss: OnLoss,
        kv_bits: int | None = None,
        saved_folders: Sequence[Path] | None = None,
    ) -> None:
        self._model_path = model_path
        self._kv_bits = kv_bits
        self._saved_folders = saved_folders
        self._on_progress = on_progress
        self._on_loss = on_loss
        self._run_dir = make_run_dir()
        self._events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._workers: dict[int, tuple[int, Worker]] = {}
        self._num_started = 0
        self._ended: set[int] = set()
        self.statuses = [StageStatus(i, layers) for i, layers in enumerate(ranges)]

    @property
    def entry(self) -> str:
        """Endpoint of stage 0."""
        return self._endpoint("stage-0")

    @property
    def results(self) -> str:
        """Endpoint that the last stage sends to."""
        return self._endpoint("results")

    def start(self, stage: int, epoch: int) -> None:
        """Start the worker of one stage (again)."""
        status = self.statuses[stage]
        status.state, status.loaded_bytes = StageState.LOADING, 0
        worker_id = self._num_started
        self._num_started += 1
        worker = Worker(
            "tbcluster.stage",
            self._spec(status, epoch),
            on_report=lambda report: self._events.put(_Event(worker_id, stage, report)),
            on_exit=lambda code: self._exited(_Event(worker_id, stage, code), code),
        )
        self._workers[stage] = (worker_id, worker)
        status.pid = worker.pid

    def await_ready(self) -> None:
        """Wait until every stage takes steps.

        Raises:
            TbclusterError: A stage cannot be loaded, died, or `interrupt` was called.
        """
        exited = self.next_exit(until_ready=True)
        if exited is not None:
            raise StageError(f"stage {exited.stage} {exited.what} while it was loading")

    def next_exit(self, *, until_ready: bool = False) -> StageExited | None:
        """Follow the workers until one ends (or, with `until_ready`, until all are ready: None).

        Raises:
            TbclusterError: A stage reports that it cannot be loaded, or `interrupt` was called.
        """
        while True:
            event = self._events.get()
            if event is None:
                raise StageError("the stages were stopped")
            worker = self._workers.get(event.stage)
            if worker is None or worker[0] != event.worker_id:
                continue  # the last words of a worker that was replaced
            exited = self._note(self.statuses[event.stage], event.report)
            self._on_progress(self.statuses)
            all_ready = all(status.state is StageState.READY for status in self.statuses)
            if exited is not None or (until_ready and all_ready):
                return exited

    def interrupt(self) -> None:
        """Make `next_exit` raise. Thread-safe."""
        self._events.put(None)

    def dead_stages(self) -> list[int]:
        """Stages whose worker has ended and was not started again, told by `next_exit` or not yet.
        Thread-safe."""
        workers = list(self._workers.items())
        return [stage for stage, (worker_id, _) in workers if worker_id in self._ended]

    def close(self) -> None:
        """End all workers and remove the sockets."""
        workers = [worker for _, worker in self._workers.values()]
        for worker in workers:
            worker.ask_to_stop()
        for worker in workers:
            worker.join()
        self._workers.clear()
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def _exited(self, event: _Event, code: int) -> None:
        # First: what is begun after the loss was told must be able to see it.
        self._ended.add(event.worker_id)
        self._on_loss(StageExited(event.stage, describe_exit(code)))
        self._events.put(event)

    def _note(self, status: StageStatus, report: Report | int) -> StageExited | None:
        match report:
            case Loading(loaded_bytes=loaded, total_bytes=total):
                status.loaded_bytes, status.total_bytes = loaded, total
            case Ready(memory_bytes=memory, backend=backend, note=note):
                status.state = StageState.READY
                status.memory_bytes, status.backend, status.note = memory, backend, note
            case Failed(kind=kind, message=message):
                raise error_of_kind(kind, f"stage {status.index}: {message}")
            case int():
                status.state = StageState.DEAD
                return StageExited(status.index, describe_exit(report))
        return None

    def _spec(self, status: StageStatus, epoch: int) -> StageSpec:
        saved = self._saved_folders
        following = (status.index + 1) % len(self.statuses)
        return StageSpec(
            index=status.index,
            num_stages=len(self.statuses),
            model_path=str(self._model_path),
            layers=status.layers,
            epoch=epoch,
            inbound=self._endpoint(f"stage-{status.index}"),
            next_stage=self._endpoint(f"stage-{following}"),
            results=self.results,
            run_dir=str(self._run_dir),
            kv_bits=self._kv_bits,
            saved_folder=None if saved is None else str(saved[status.index]),
        )

    def _endpoint(self, name: str) -> str:
        return f"ipc://{self._run_dir}/{name}"


def make_run_dir() -> Path:
    """A new folder, readable by this user alone, whose path is short enough for sockets."""
    parent = tempfile.gettempdir()
    if len(parent) + SOCKET_NAME_LENGTH > MAX_SOCKET_PATH:
        parent = "/tmp"  # noqa: S108 - mkdtemp makes an unguessable folder with mode 0700
    return Path(tempfile.mkdtemp(prefix="tbcluster-", dir=parent))


def error_of_kind(kind: str, message: str) -> TbclusterError:
    """The error that a worker process reported by the name of its class."""
    error_class = getattr(errors, kind, None)
    if not (isinstance(error_class, type) and issubclass(error_class, TbclusterError)):
        return StageError(f"{kind}: {message}")
    return error_class(message)
