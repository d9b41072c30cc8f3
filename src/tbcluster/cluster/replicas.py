"""All replicas of a model as one: requests are routed to them, what they say is put together."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace

from tbcluster.cluster.assembly import NewPlaces
from tbcluster.cluster.parity_check import ParityCheck
from tbcluster.cluster.recovery.record import RecoveryRecord
from tbcluster.cluster.recovery.tended import Replanner
from tbcluster.cluster.replica import Hooks, Replica
from tbcluster.cluster.routing import choose
from tbcluster.cluster.served_model import ServedModel
from tbcluster.cluster.stage_status import StageStatus
from tbcluster.cluster.stages import OnProgress
from tbcluster.cluster.status import ClusterState, RecoveryStats, loading, state_of
from tbcluster.core import Request
from tbcluster.engine.engine import Engine
from tbcluster.engine.limits import Limits
from tbcluster.engine.sequence import Listener
from tbcluster.engine.statistics import EngineStatistics, merged
from tbcluster.errors import ClusterClosedError, StageLostError, TbclusterError
from tbcluster.tracing.records import ReplicaTrace

logger = logging.getLogger(__name__)


class ReplicaSet:
    """Every replica of a model.

    Args:
        new_places: See `assemble`.
        on_progress: Called while stages load, with the state of all of them.
        new_replanner: Makes what plans a replica anew, by its number; None on one machine.
        on_switch: Called when a replica is placed by another plan.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        new_places: NewPlaces,
        check: ParityCheck,
        on_progress: OnProgress,
        new_replanner: Callable[[int], Replanner | None] = lambda _: None,
        on_switch: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_progress = on_progress
        self._progress_lock = threading.Lock()
        self._check = check
        self._is_checking = False
        self._replicas: list[Replica] = []
        hooks = Hooks(self._tell_progress, self._note_failure, self._other_engine, on_switch)
        try:
            for model in models:
                replanner = new_replanner(model.replica)
                self._replicas.append(Replica(model, new_places, check, hooks, replanner))
        except BaseException:
            self.close()
            raise

    # Life

    def load(self) -> None:
        """Start the stages of all replicas at once, and wait until they take steps.

        Raises:
            TbclusterError: One cannot be loaded, or they were closed meanwhile.
        """
        self._at_once(Replica.load)

    def check(self) -> None:
        """Check the output of each.

        Raises:
            ParityError: It is not what it should be.
            StageLostError: A stage was lost meanwhile.
        """
        self._is_checking = True
        for replica in self._replicas:
            replica.check()

    def open(self) -> None:
        """Answer requests."""
        for replica in self._replicas:
            replica.open()

    def close(self) -> None:
        """End all processes; open requests end with ClusterClosedError. Thread-safe."""
        for replica in self._replicas:
            replica.close()
        self._check.close()

    def end_requests(self, reason: str) -> None:
        """End every request, open or yet to come, with ClusterClosedError."""
        for replica in self._replicas:
            replica.engine.close(ClusterClosedError(reason))

    # Requests

    def submit(self, request: Request, listener: Listener) -> None:
        """Run a request on the replica that suits it best (see `routing`).

        Raises:
            TbclusterError: See `Engine.submit`.
        """
        if len(self._replicas) == 1:
            self._replicas[0].engine.submit(request, listener)
            return
        failure = self.failure
        if failure is not None and self.state is ClusterState.FAILED:
            # It makes no sense to send the request again, as the engines advise.
            raise failure.with_traceback(None)
        chosen = choose([replica.candidate(request) for replica in self._replicas])
        self._replicas[chosen].engine.submit(request, listener)

    def cancel(self, request: Request) -> None:
        """End a request wherever it runs."""
        for replica in self._replicas:
            replica.engine.cancel(request.request_id)

    def trace(self, request_id: str, *, with_steps: bool) -> tuple[ReplicaTrace, ...]:
        """What the replicas know of a request that has been there."""
        traces = (
            (replica.model.replica, replica.engine.trace(request_id, with_steps=with_steps))
            for replica in self._replicas
        )
        return tuple(ReplicaTrace(number, found) for number, found in traces if found is not None)

    # Facts

    @property
    def model(self) -> ServedModel:
        """The first one; what is not about its stages holds for all."""
        return self._replicas[0].model

    @property
    def limits(self) -> Limits:
        """What a request may ask for: the limits of the replica that takes the longest ones."""
        limits = [replica.model.limits for replica in self._replicas]
        return max(limits, key=lambda of: float("inf") if of.kv_tokens is None else of.kv_tokens)

    @property
    def state(self) -> ClusterState:
        """What they can do together."""
        return state_of(replica.state for replica in self._replicas)

    @property
    def doing(self) -> str | None:
        """What they do while they start or come back, in words; None while they answer."""
        if self.state is ClusterState.STARTING:
            return self._check.doing if self._is_checking else loading(self.statuses)
        return next((one.doing for one in self._replicas if one.doing is not None), None)

    @property
    def failure(self) -> TbclusterError | None:
        """Why a replica has failed for good, if one has."""
        failures = (replica.failure for replica in self._replicas)
        return next((failure for failure in failures if failure is not None), None)

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return sum(replica.engine.num_open for replica in self._replicas)

    @property
    def statuses(self) -> list[StageStatus]:
        """Of all stages, as they are known now."""
        return [status for replica in self._replicas for status in replica.stages.statuses]

    def snapshot(self) -> tuple[StageStatus, ...]:
        """Of all stages, with the names that their nodes have now, numbered through."""
        stages = [status for replica in self._replicas for status in replica.stages.snapshot()]
        return tuple(replace(status, index=index) for index, status in enumerate(stages))

    @property
    def recoveries(self) -> RecoveryStats:
        """What they have recovered from."""
        counts: Counter[str] = Counter()
        for replica in self._replicas:
            counts.update(replica.book.counts)
        waiting = (ClusterState.RECOVERING, ClusterState.STARVED)
        paused = [replica for replica in self._replicas if replica.state in waiting]
        records = self.recovery_records
        newest = records[-1] if records else None
        return RecoveryStats(
            num_recoveries=counts,
            last_seconds=newest.opened_at - newest.noticed_at if newest is not None else None,
            total_seconds=sum(replica.book.total_s for replica in self._replicas),
            num_parity_checks=sum(one.num_parity_checks for one in self._replicas),
            num_parity_failures=sum(one.num_parity_failures for one in self._replicas),
            num_paused=sum(replica.engine.num_open for replica in paused),
        )

    @property
    def recovery_records(self) -> tuple[RecoveryRecord, ...]:
        """The last recoveries, oldest first."""
        records = [record for replica in self._replicas for record in replica.book.records]
        return tuple(sorted(records, key=lambda record: record.noticed_at))

    def examine(self) -> None:
        """Have the stages of all replicas examined now, instead of by schedule."""
        for replica in self._replicas:
            replica.examine()

    def statistics(self) -> EngineStatistics:
        """What all engines have counted since the last reset."""
        return merged([replica.engine.statistics for replica in self._replicas])

    def reset_statistics(self) -> None:
        """Let them count from zero again."""
        for replica in self._replicas:
            replica.engine.reset_statistics()

    def _at_once(self, action: Callable[[Replica], None]) -> None:
        """Do it for all, each in a thread of its own; the first error ends the others."""
        with ThreadPoolExecutor(len(self._replicas), "tbcluster-load") as pool:
            try:
                running = [pool.submit(action, replica) for replica in self._replicas]
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                for replica in self._replicas:
                    replica.interrupt()
                raise

    def _other_engine(self, number: int) -> Engine | None:
        """That of the replica which is up, is another one, and has the least to do."""
        others = [
            replica.engine
            for replica in self._replicas
            if replica.model.replica != number and replica.state is ClusterState.READY
        ]
        return min(others, key=lambda engine: engine.num_open, default=None)

    def _tell_progress(self, _: list[StageStatus]) -> None:
        with self._progress_lock:
            self._on_progress(self.statuses)

    def _note_failure(self, index: int, error: TbclusterError) -> TbclusterError:
        """What the requests of a replica that has failed for good are told."""
        others = [replica for replica in self._replicas if replica.model.replica != index]
        if all(replica.state is ClusterState.FAILED for replica in others):
            logger.error("%s; no more requests can be answered: start tbcluster again", error)
            return error
        logger.error("replica %d: %s; the others go on without it", index + 1, error)
        return StageLostError(f"a replica has failed ({error}): send the request again")
