"""The stage workers that an agent runs, and what else it is asked to do for a while: started, told,
watched, freed, taken over, ended."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tbcluster.cluster.agent.errands import Errand, Errands
from tbcluster.cluster.agent.free_workers import FreeWorkers
from tbcluster.cluster.agent.outbox import OfWorker
from tbcluster.cluster.agent.site import Site
from tbcluster.cluster.supervisor import Worker
from tbcluster.errors import StageError
from tbcluster.hardware.memory import left_bytes
from tbcluster.hardware.sleep import keep_awake
from tbcluster.weights.amounts import decimal
from tbcluster.wire.control import Loading, Routes, StageSpec, WorkerSpec
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
    """One process from its order to its end; `why` is set once it was told to end."""

    worker_id: str  # What the coordinator calls it.
    spec: WorkerSpec
    worker: Worker | None = None
    why: str | None = None


class Workers:
    """All methods are called in the agent's own thread; processes are started and waited for in
    another, in the order in which that was asked.

    Args:
        post: Has something done in the agent's own thread.
        on_news: Called there with what happens to the workers.
        modules: What to run.
        memory_left: Says how many bytes are free on this machine.
    """

    def __init__(
        self,
        site: Site,
        post: Callable[[Errand], None],
        on_news: Callable[[OfWorker], None],
        modules: Mapping[type[WorkerSpec], str] = MODULES,
        memory_left: Callable[[], int] = left_bytes,
    ) -> None:
        self._site = site
        self._post = post
        self._on_news = on_news
        self._modules = modules
        self._memory_left = memory_left
        self._slots: dict[str, _Slot] = {}
        self._free: FreeWorkers[_Slot] = FreeWorkers()
        self._let_sleep: Callable[[], None] | None = None
        self._errands = Errands("workers")

    @property
    def ids(self) -> tuple[str, ...]:
        """Those that run, or are about to; none that is free."""
        return tuple(self._slots)

    @property
    def are_reusable(self) -> bool:
        """Whether another coordinator could use one of them."""
        return bool(self._free) or any(map(_reusable, self._slots.values()))

    def start(self, worker_id: str, spec: WorkerSpec) -> None:
        """Start a worker, or have a free one take this place; one that runs already is left as it
        is."""
        if worker_id in self._slots:
            logger.warning("worker %s was to be started twice", worker_id)
            return
        placed = self._site.place(spec)
        if isinstance(placed, StageSpec):
            free = self._free.take(placed)
            if free is not None:
                self._take_over(free, worker_id, placed)
                return
            self._end(self._free.take_obsolete(placed), "it made room")
        slot = self._slots[worker_id] = _Slot(worker_id, placed)
        self._errands.do(lambda: self._launch(slot, worker_id, placed))

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
            self._end([slot], "the coordinator said so")

    def free(self, worker_id: str, now: float) -> None:
        """Keep a stage worker for another plan; end an errand."""
        slot = self._slots.get(worker_id)
        spec = _reusable(slot) if slot is not None else None
        if slot is None or spec is None:
            self.stop(worker_id)
            return
        del self._slots[worker_id]
        logger.info("worker %s is free", worker_id)
        self._free.add(slot, spec, now)
        self._on_news(WorkerEnded(worker_id, "was freed for another plan"))

    def release_all(self, why: str, now: float) -> None:
        """Whoever started them is gone: stage workers are free, errands end, and nothing more is
        said of any."""
        if self._slots:
            logger.info("%s: %d workers are left of it", why, len(self._slots))
        slots = list(self._slots.values())
        self._slots.clear()
        self._end([slot for slot in slots if _reusable(slot) is None], why)
        for slot in slots:
            spec = _reusable(slot)
            if spec is not None:
                self._free.add(slot, spec, now)

    def hold(self) -> None:
        """No coordinator is there who could use the free ones: they wait for longer."""
        self._free.hold()

    def resume(self, now: float) -> None:
        """One is there."""
        self._free.resume(now)

    def tidy(self, now: float) -> None:
        """End the free ones that nobody has taken over in time."""
        self._end(self._free.take_overdue(now), "nobody took it over")

    def next_at(self) -> float:
        """When `tidy` has to be called at the latest."""
        return self._free.next_at()

    def stop_all(self, why: str) -> None:
        """End all workers, free ones too, before anything else is done."""
        slots = [*self._slots.values(), *self._free.take_all()]
        if slots:
            logger.info("ending all workers: %s", why)
        self._end(slots, why)

    def close(self) -> None:
        """End all workers, wait until they are gone, and remove their sockets."""
        self.stop_all("the agent ends")
        self._slots.clear()
        self._errands.do(self._rest)
        self._errands.close()
        shutil.rmtree(self._site.run_dir, ignore_errors=True)

    def _end(self, slots: Sequence[_Slot], why: str) -> None:
        if not slots:
            return
        for slot in slots:
            slot.why = slot.why or f"was ended: {why}"
        self._errands.do(lambda: _stop_together([slot.worker for slot in slots if slot.worker]))

    def _take_over(self, slot: _Slot, worker_id: str, spec: StageSpec) -> None:
        slot.worker_id, slot.spec = worker_id, spec
        self._slots[worker_id] = slot
        self._errands.do(lambda: self._assign(slot, worker_id, spec))

    # In the other thread

    def _launch(self, slot: _Slot, worker_id: str, spec: WorkerSpec) -> None:
        try:
            self._site.prepare()
            worker = Worker(
                self._modules[type(spec)],
                spec,
                on_report=lambda report: self._tell(slot, WorkerSaid(worker_id, report)),
                on_exit=lambda what: self._post(lambda: self._ended(slot, what)),
            )
        except (StageError, OSError) as error:
            reason = str(error)
            self._post(lambda: self._ended(slot, f"could not be started: {reason}"))
            return
        slot.worker = worker
        if self._let_sleep is None:
            self._let_sleep = keep_awake(os.getpid())
        logger.info("started worker %s, process %d: %s", worker_id, worker.pid, _described(spec))
        self._tell(slot, WorkerStarted(worker_id, worker.pid))

    def _assign(self, slot: _Slot, worker_id: str, spec: StageSpec) -> None:
        if slot.worker is None:
            return  # it could not be started, which is told as the end of this one
        slot.worker.assign(spec, lambda report: self._tell(slot, WorkerSaid(worker_id, report)))
        logger.info("process %d is worker %s now: %s", slot.worker.pid, worker_id, _described(spec))
        self._tell(slot, WorkerStarted(worker_id, slot.worker.pid))

    def _rest(self) -> None:
        if self._let_sleep is not None and not self._slots and not self._free:
            self._let_sleep()
            self._let_sleep = None

    def _tell(self, slot: _Slot, news: OfWorker) -> None:
        # What a free one says is nobody's; another worker may have the id of one that was let go.
        self._post(lambda: self._hear(news) if self._slots.get(news.worker_id) is slot else None)

    # In the agent's own thread again

    def _hear(self, news: OfWorker) -> None:
        if isinstance(news, WorkerSaid) and isinstance(news.report, Loading):
            self._make_room(news.report)
        self._on_news(news)

    def _make_room(self, loading: Loading) -> None:
        """Whoever planned for this machine need not know of the free ones: another model may be
        served now."""
        if self._free and self._memory_left() < loading.total_bytes - loading.loaded_bytes:
            self._end(self._free.take_all(), "it made room")

    def _ended(self, slot: _Slot, what: str) -> None:
        if self._slots.get(slot.worker_id) is slot:
            del self._slots[slot.worker_id]
            logger.info("worker %s %s", slot.worker_id, slot.why or what)
            self._on_news(WorkerEnded(slot.worker_id, slot.why or what))
        elif self._free.discard(slot):
            logger.info("a free worker %s", what)
        self._site.tidy(slot.spec for slot in self._slots.values())
        if not self._slots and not self._free:
            self._errands.do(self._rest)


def _reusable(slot: _Slot) -> StageSpec | None:
    """What it holds, if another plan could use it."""
    spec = slot.spec
    return spec if isinstance(spec, StageSpec) and spec.shard and slot.why is None else None


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
