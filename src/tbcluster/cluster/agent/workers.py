"""The stage workers that an agent runs: started, told, watched, ended."""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tbcluster.cluster.agent.errands import Errand, Errands
from tbcluster.cluster.agent.outbox import OfWorker
from tbcluster.cluster.supervisor import Worker, describe_exit
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import StageError
from tbcluster.hardware.sleep import keep_awake
from tbcluster.wire.control import CurveKeys, Routes, StageSpec, WorkerSpec
from tbcluster.wire.rack import WorkerEnded, WorkerSaid, WorkerStarted

logger = logging.getLogger(__name__)

STAGE_MODULE = "tbcluster.stage"


@dataclass(slots=True, eq=False)
class _Slot:
    """One worker from its order to its end; `why` is set once it was told to end."""

    worker_id: str
    worker: Worker | None = None
    why: str | None = None


class Workers:
    """All methods are called in the agent's own thread; processes are started and waited for in
    another, in the order in which that was asked.

    Args:
        run_dir: Folder of the workers' sockets.
        models: Where models are looked for by the last part of their name.
        post: Has something done in the agent's own thread.
        on_news: Called there with what happens to the workers.
        module: What to run.
    """

    def __init__(
        self,
        keys: CurveKeys,
        run_dir: Path,
        models: Path | None,
        post: Callable[[Errand], None],
        on_news: Callable[[OfWorker], None],
        module: str = STAGE_MODULE,
    ) -> None:
        self._keys = keys
        self._run_dir = run_dir
        self._models = models
        self._post = post
        self._on_news = on_news
        self._module = module
        self._slots: dict[str, _Slot] = {}
        self._let_sleep: Callable[[], None] | None = None
        self._errands = Errands("workers")

    @property
    def ids(self) -> tuple[str, ...]:
        """Those that run, or are about to."""
        return tuple(self._slots)

    def start(self, worker_id: str, spec: WorkerSpec) -> None:
        """Start a worker; one that runs already is left as it is."""
        assert isinstance(spec, StageSpec)  # noqa: S101 - nobody asks for errands yet
        if worker_id in self._slots:
            logger.warning("worker %s was to be started twice", worker_id)
            return
        slot = self._slots[worker_id] = _Slot(worker_id)
        placed = msgspec.structs.replace(
            spec,
            keys=self._keys,
            model=find_locally(spec.model, self._models),
            run_dir=str(self._run_dir),
        )
        self._errands.do(lambda: self._launch(slot, placed))

    def route(self, worker_id: str, routes: Routes) -> None:
        """Tell a worker where its messages go; one that is gone needs no more."""
        slot = self._slots.get(worker_id)
        if slot is not None:
            self._errands.do(lambda: slot.worker.route(routes) if slot.worker else None)

    def stop(self, worker_id: str) -> None:
        """End a worker."""
        slot = self._slots.get(worker_id)
        if slot is None:
            self._on_news(WorkerEnded(worker_id, "does not run here"))
        else:
            self._end([slot], "was told to end")

    def stop_all(self, why: str, *, forgets: bool) -> None:
        """End all workers before anything else is done; `forgets`: nothing more is said of
        them."""
        if self._slots:
            logger.info("ending all workers: %s", why)
        self._end(list(self._slots.values()), why)
        if forgets:
            self._slots.clear()

    def close(self) -> None:
        """End all workers, wait until they are gone, and remove their sockets."""
        self.stop_all("the agent ends", forgets=True)
        self._errands.do(self._rest)
        self._errands.close()
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def _end(self, slots: Sequence[_Slot], why: str) -> None:
        for slot in slots:
            slot.why = slot.why or f"was ended: {why}"
        self._errands.do(lambda: _stop_together([slot.worker for slot in slots if slot.worker]))

    # In the other thread

    def _launch(self, slot: _Slot, spec: StageSpec) -> None:
        try:
            _make_sure_of(self._run_dir)
            worker = Worker(
                self._module,
                spec,
                on_report=lambda report: self._tell(slot, WorkerSaid(slot.worker_id, report)),
                on_exit=lambda status: self._post(lambda: self._ended(slot, describe_exit(status))),
            )
        except (StageError, OSError) as error:
            reason = str(error)
            self._post(lambda: self._ended(slot, f"could not be started: {reason}"))
            return
        slot.worker = worker
        if self._let_sleep is None:
            self._let_sleep = keep_awake(os.getpid())
        layers = spec.layers
        logger.info(
            "started worker %s, process %d: stage %d, layers %d-%d of %s",
            slot.worker_id,
            worker.pid,
            spec.index,
            layers.start,
            layers.end - 1,
            spec.model,
        )
        self._tell(slot, WorkerStarted(slot.worker_id, worker.pid))

    def _rest(self) -> None:
        if self._let_sleep is not None and not self._slots:
            self._let_sleep()
            self._let_sleep = None

    def _tell(self, slot: _Slot, news: OfWorker) -> None:
        self._post(lambda: self._on_news(news) if self._is_known(slot) else None)

    # In the agent's own thread again

    def _ended(self, slot: _Slot, what: str) -> None:
        if not self._is_known(slot):
            return
        del self._slots[slot.worker_id]
        logger.info("worker %s %s", slot.worker_id, slot.why or what)
        self._on_news(WorkerEnded(slot.worker_id, slot.why or what))
        if not self._slots:
            self._errands.do(self._rest)

    def _is_known(self, slot: _Slot) -> bool:
        # Another worker may have the id of one that was forgotten.
        return self._slots.get(slot.worker_id) is slot


def find_locally(model: str, models: Path | None) -> str:
    """The folder of a model on this machine: as it is named where that exists, else the one of the
    same last name in `models`; the name itself if there is neither. No name is the bundled
    model's."""
    if not model:
        return str(MODEL_PATH)
    name = Path(model).name
    if models is None or name == ".." or _exists(Path(model)):
        return model
    local = models / name
    return str(local) if _exists(local) else model


def _make_sure_of(run_dir: Path) -> None:
    """Systems clean up their folders of temporary files: it may be gone, and its name be known."""
    run_dir.mkdir(mode=0o700, exist_ok=True)
    if run_dir.stat().st_uid != os.getuid():
        raise StageError(f"{run_dir} belongs to another user: start the agent again")


def _exists(path: Path) -> bool:
    try:
        return path.expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path; no home folder
        return False


def _stop_together(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.ask_to_stop()
    for worker in workers:
        worker.join()
