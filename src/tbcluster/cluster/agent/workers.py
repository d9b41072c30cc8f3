"""The stage workers that an agent runs, and what else it is asked to do for a while: started, told,
watched, ended."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tbcluster.cluster.agent.errands import Errand, Errands
from tbcluster.cluster.agent.outbox import OfWorker
from tbcluster.cluster.agent.site import Site
from tbcluster.cluster.supervisor import Worker, describe_exit
from tbcluster.errors import StageError
from tbcluster.hardware.sleep import keep_awake
from tbcluster.weights.amounts import decimal
from tbcluster.wire.control import Routes, StageSpec, WorkerSpec
from tbcluster.wire.errands import CalibrateSpec, FetchSpec, SurveySpec
from tbcluster.wire.rack import WorkerEnded, WorkerSaid, WorkerStarted

logger = logging.getLogger(__name__)

# What runs for each kind of spec.
MODULES: Mapping[type[WorkerSpec], str] = {
    StageSpec: "tbcluster.stage",
    CalibrateSpec: "tbcluster.stage.calibrate",
    SurveySpec: "tbcluster.weights.survey",
    FetchSpec: "tbcluster.weights",
}


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
        post: Has something done in the agent's own thread.
        on_news: Called there with what happens to the workers.
        modules: What to run.
    """

    def __init__(
        self,
        site: Site,
        post: Callable[[Errand], None],
        on_news: Callable[[OfWorker], None],
        modules: Mapping[type[WorkerSpec], str] = MODULES,
    ) -> None:
        self._site = site
        self._post = post
        self._on_news = on_news
        self._modules = modules
        self._slots: dict[str, _Slot] = {}
        self._let_sleep: Callable[[], None] | None = None
        self._errands = Errands("workers")

    @property
    def ids(self) -> tuple[str, ...]:
        """Those that run, or are about to."""
        return tuple(self._slots)

    def start(self, worker_id: str, spec: WorkerSpec) -> None:
        """Start a worker; one that runs already is left as it is."""
        if worker_id in self._slots:
            logger.warning("worker %s was to be started twice", worker_id)
            return
        slot = self._slots[worker_id] = _Slot(worker_id)
        placed = self._site.place(spec)
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
        shutil.rmtree(self._site.run_dir, ignore_errors=True)

    def _end(self, slots: Sequence[_Slot], why: str) -> None:
        for slot in slots:
            slot.why = slot.why or f"was ended: {why}"
        self._errands.do(lambda: _stop_together([slot.worker for slot in slots if slot.worker]))

    # In the other thread

    def _launch(self, slot: _Slot, spec: WorkerSpec) -> None:
        try:
            self._site.prepare()
            worker = Worker(
                self._modules[type(spec)],
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
        logger.info(
            "started worker %s, process %d: %s", slot.worker_id, worker.pid, _described(spec)
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


def _described(spec: WorkerSpec) -> str:
    """What it does, for the log."""
    match spec:
        case StageSpec(index=index, layers=layers, model=model):
            return f"stage {index}, layers {layers.start}-{layers.end - 1} of {model}"
        case SurveySpec(listing=listing):
            return f"looking for {listing.model}"
        case FetchSpec(listing=listing, parts=parts):
            num_bytes = sum(span.length for part in parts for span in part.spans)
            return f"fetching {decimal(num_bytes)} of {listing.model}"
        case CalibrateSpec(kinds=kinds):
            return f"measuring the speed with {', '.join(kinds)}"


def _stop_together(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.ask_to_stop()
    for worker in workers:
        worker.join()
