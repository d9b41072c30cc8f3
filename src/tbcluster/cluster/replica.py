"""One copy of a model: its engine, the stages that it drives, and who looks after them."""

import logging
import queue
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass

from tbcluster.cluster.assembly import Assembly, NewPlaces, assemble
from tbcluster.cluster.engine_parts import new_engine
from tbcluster.cluster.news import ExaminationDue, Examined, Loss, NodesChanged
from tbcluster.cluster.parity import TOLERANCE
from tbcluster.cluster.parity_check import ParityCheck, probe_prompt
from tbcluster.cluster.recovery.guard import Guard
from tbcluster.cluster.recovery.keeper import Keeper
from tbcluster.cluster.recovery.record import RecoveryBook
from tbcluster.cluster.recovery.tended import Replanner
from tbcluster.cluster.routing import Candidate
from tbcluster.cluster.served_model import ServedModel
from tbcluster.cluster.stages import Inbox, OnProgress, StageSet
from tbcluster.cluster.status import ClusterState
from tbcluster.core import Request
from tbcluster.engine.engine import Engine
from tbcluster.errors import ClusterClosedError, ParityError, TbclusterError

logger = logging.getLogger(__name__)

FIRST_EPOCH = 1
# How often whoever waits for the engine looks whether it still runs.
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Hooks:
    """Whom a replica tells, and asks.

    Attributes:
        on_progress: See `StageSet`.
        on_failure: Called once, when the replica has failed for good, with its number; gives the
            error that its requests end with.
        other_engine: The engine of another replica that is up, if there is one; given this one's
            number.
        on_switch: Called when stages of another plan are being started.
    """

    on_progress: OnProgress
    on_failure: Callable[[int, TbclusterError], TbclusterError]
    other_engine: Callable[[int], Engine | None]
    on_switch: Callable[[], None]


class Replica:
    """Stages that answer together, from when they are loaded until they are closed.

    Args:
        new_places: See `assemble`.
        check: Shared by all replicas, and closed by whoever made it.
        replanner: Makes new plans when nodes come and go; None on one machine.
    """

    def __init__(
        self,
        model: ServedModel,
        new_places: NewPlaces,
        check: ParityCheck,
        hooks: Hooks,
        replanner: Replanner | None = None,
    ) -> None:
        self.state = ClusterState.STARTING
        self.doing: str | None = None
        self.failure: TbclusterError | None = None
        self.book = RecoveryBook()
        self._new_places = new_places
        self._check = check
        self._hooks = hooks
        self._replanner = replanner
        self._lock = threading.Lock()
        # Whoever closes it while another thread does returns when that has.
        self._close_lock = threading.RLock()
        self._inbox: Inbox = queue.SimpleQueue()
        self._assembly = self._assembled(model, FIRST_EPOCH)
        self.engine = new_engine(model, self._assembly.works, self.give_up)
        prompt = probe_prompt(model.tokenizer, model.facts.vocab_size)
        tolerance = TOLERANCE["half" if model.device.compute_dtype is None else "float32"]
        self.guard = Guard(prompt, tolerance, lambda result: self._inbox.put(Examined(result)))
        self._num_checks = self._num_check_failures = 0
        self._threads: list[threading.Thread] = []
        self._cleanup = ExitStack()
        if replanner is not None:
            self._cleanup.callback(replanner.follow(self._nodes_changed))

    @property
    def model(self) -> ServedModel:
        """As it is placed now."""
        return self._assembly.model

    @property
    def stages(self) -> StageSet:
        """Those of the plan in force."""
        return self._assembly.stages

    # Life

    def load(self) -> None:
        """Start the stages and wait until they take steps.

        Raises:
            TbclusterError: One cannot be loaded, or the replica was closed meanwhile.
        """
        if self.state is ClusterState.CLOSED:
            raise ClusterClosedError("the cluster was closed while it was starting")
        try:
            self._start_stages(FIRST_EPOCH)
            if self.model.replica == 0:
                # While the stages load nobody is held up by it.
                self.model.grammars.open()
            self._start_thread("engine", self.engine.run)
            self.stages.await_ready()
        except BaseException:
            # It may have been closed before the last one was started.
            self.stages.close()
            raise

    def check(self) -> None:
        """Check the output.

        Raises:
            ParityError: It is not what it should be.
            StageLostError: A stage was lost meanwhile.
        """
        self._num_checks += 1
        try:
            self._check.run(self.engine, self.stages.is_broken)
        except ParityError:
            self._num_check_failures += 1
            raise

    def open(self) -> None:
        """Answer requests, and keep the stages running from now on."""
        self.engine.open()
        self.become(ClusterState.READY)
        keeper = Keeper(self, FIRST_EPOCH, self._replanner, self.book, self.guard)
        self._start_thread("keeper", keeper.run)

    def interrupt(self) -> None:
        """Make `load` raise. Thread-safe."""
        self.stages.interrupt()

    def examine(self) -> None:
        """Have the stages examined now, whenever it was done last. Thread-safe."""
        self._inbox.put(ExaminationDue())

    def close(self) -> None:
        """End its processes; open requests end with ClusterClosedError. Thread-safe."""
        with self._close_lock:
            self._close()

    def _close(self) -> None:
        with self._lock:
            self.state = ClusterState.CLOSED
            cleanup, self._cleanup = self._cleanup, ExitStack()
            threads, self._threads = self._threads, []
        cleanup.close()
        self.engine.stop()
        self.stages.interrupt()
        for thread in threads:
            thread.join()
        # Last: until then there may have come another one.
        self._assembly.cleanup.close()

    # What requests ask

    def candidate(self, request: Request) -> Candidate:
        """How it looks to a request that may come here."""
        return Candidate(
            index=self.model.replica,
            num_open=self.engine.num_open,
            tokens_per_s=self.model.tokens_per_s,
            num_known=self.engine.num_known(request),
            is_up=self.state is ClusterState.READY,
            is_starved=self.state is ClusterState.STARVED,
            has_failed=self.state is ClusterState.FAILED,
            has_room=self.engine.has_room(request),
        )

    @property
    def num_parity_checks(self) -> int:
        """How often its output was compared with what it should be."""
        return self._num_checks + self.guard.num_checks

    @property
    def num_parity_failures(self) -> int:
        """How often that was something else."""
        return self._num_check_failures + self.guard.num_failures

    # What its keeper asks

    def pause(self) -> None:
        """Let running requests wait; where another replica is up, they go on there."""
        self.engine.pause()
        other = self._hooks.other_engine(self.model.replica)
        if other is not None:
            self.engine.surrender(other.adopt, other.has_room)

    def switch(self, model: ServedModel, epoch: int) -> None:
        """Begin an epoch with the stages of another plan; those that are the same in both stay
        loaded.

        Raises:
            TbclusterError: The other plan does not hold any more, and all is as it was; or one
                cannot be started, and the other plan is in force.
        """
        before, after = self._assembly, self._assembled(model, epoch)
        try:
            if self._replanner is not None:
                self._replanner.settle()
            with self._lock:
                if self.state is ClusterState.CLOSED:
                    raise ClusterClosedError("the cluster was closed")
                self._assembly = after
        except BaseException:
            after.cleanup.close()
            raise
        # First: what is not kept has to give back its memory.
        left = before.stages.leave(set(zip(model.nodes or (), model.shards, strict=True)))
        has_begun = threading.Event()
        self.engine.begin_epoch(epoch, after.works, has_begun.set)
        while not has_begun.wait(LOOK_S) and not self.engine.has_ended.is_set():
            pass
        # Now nobody sends or receives there any more.
        before.cleanup.close()
        self._hooks.on_switch()
        self._start_stages(epoch, left)

    def become(self, state: ClusterState, doing: str | None = None) -> None:
        """Say what is being done; what was closed or has failed stays so."""
        with self._lock:
            if self.state not in (ClusterState.CLOSED, ClusterState.FAILED):
                self.state, self.doing = state, doing

    def give_up(self, error: TbclusterError) -> None:
        """No more requests can be answered."""
        with self._lock:
            if self.state in (ClusterState.CLOSED, ClusterState.FAILED):
                return
            # First: whoever looks for a replica now passes it over.
            self.state, self.failure, self.doing = ClusterState.FAILED, error, None
        self.engine.close(self._hooks.on_failure(self.model.replica, error))
        # The keeper ends the stages: it has not heard of it if the engine has failed.
        self._inbox.put(None)

    # How

    def _assembled(self, model: ServedModel, epoch: int) -> Assembly:
        on_progress, on_loss = self._hooks.on_progress, self._on_loss
        return assemble(model, self._new_places, epoch, self._inbox, on_progress, on_loss)

    def _start_stages(self, epoch: int, left: Collection[tuple[str | None, str]] = ()) -> None:
        """Start them all; what was left loaded for them (node and shard) is asked for first, before
        a node needs its memory for another one."""
        model = self.model
        places = list(zip(model.nodes or (None,) * len(model.ranges), model.shards, strict=True))
        for stage in sorted(range(len(places)), key=lambda stage: places[stage] not in left):
            self.stages.start(stage, epoch)

    def _start_thread(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"tbcluster-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _on_loss(self, loss: Loss) -> None:
        """At once, in the thread that saw it: what comes back from now on is worth nothing."""
        if self.state is not ClusterState.CLOSED:
            self.book.noticed(str(loss))
            self.engine.pause()

    def _nodes_changed(self) -> None:
        self._inbox.put(NodesChanged())
