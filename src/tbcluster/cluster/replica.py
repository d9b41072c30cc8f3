"""One copy of a model: its stages, its engine, and who watches them."""

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tbcluster.cluster.parity_check import ParityCheck
from tbcluster.cluster.parts import FIRST_EPOCH, Parts, assemble
from tbcluster.cluster.routing import Candidate
from tbcluster.cluster.served_model import ServedModel
from tbcluster.cluster.stages import Loss, OnProgress, StageSet
from tbcluster.cluster.status import ClusterState
from tbcluster.cluster.watcher import StageWatcher, tell_requests
from tbcluster.core import Request
from tbcluster.engine.engine import Engine
from tbcluster.errors import ClusterClosedError, TbclusterError

if TYPE_CHECKING:
    from tbcluster.cluster.rack.rack import Rack

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Whom a replica tells.

    Attributes:
        on_progress: See `StageSet`.
        on_failure: Called once, when the replica has failed for good, with its number; gives the
            error that its requests end with.
    """

    on_progress: OnProgress
    on_failure: Callable[[int, TbclusterError], TbclusterError]


class Replica:
    """Stages that answer together, from when they are loaded until they are closed.

    Args:
        check: Shared by all replicas, and closed by whoever made it.
    """

    def __init__(
        self, model: ServedModel, rack: "Rack | None", check: ParityCheck, hooks: Hooks
    ) -> None:
        self.model = model
        self.state = ClusterState.STARTING
        self.failure: TbclusterError | None = None
        self._check = check
        self._hooks = hooks
        self._lock = threading.Lock()
        # Stages may be lost before `assemble` has returned.
        self._parts: Parts | None = None
        self._parts = assemble(model, rack, hooks.on_progress, self._on_loss, self._fail)

    @property
    def engine(self) -> Engine:
        """Its token loop."""
        return self._running.engine

    @property
    def stages(self) -> StageSet:
        """Its stages."""
        return self._running.stages

    def load(self) -> None:
        """Start the stages and wait until they take steps.

        Raises:
            TbclusterError: One cannot be loaded, or the replica was closed meanwhile.
        """
        if self.state is ClusterState.CLOSED:
            raise ClusterClosedError("the cluster was closed while it was starting")
        try:
            for stage in range(len(self.model.ranges)):
                self.stages.start(stage, FIRST_EPOCH)
            if self.model.replica == 0:
                # While the stages load nobody is held up by it.
                self.model.grammars.open()
            self._running.start_thread("engine", self.engine.run)
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
        self._check.run(self.engine, self.stages.is_broken)

    def open(self) -> None:
        """Answer requests, and keep the stages running from now on."""
        self.engine.open()
        self._become(ClusterState.READY)
        watcher = StageWatcher(
            self.stages,
            self.engine,
            self.check,
            FIRST_EPOCH,
            on_recovering=self._recover,
            on_failure=self._fail,
        )
        self._running.start_thread("watcher", watcher.run)

    def candidate(self, request: Request) -> Candidate:
        """How it looks to a request that may come here."""
        return Candidate(
            index=self.model.replica,
            num_open=self.engine.num_open,
            tokens_per_s=self.model.tokens_per_s,
            num_known=self.engine.num_known(request),
            is_up=self.state is ClusterState.READY,
            has_failed=self.state is ClusterState.FAILED,
            has_room=self._has_room(request),
        )

    def interrupt(self) -> None:
        """Make `load` raise. Thread-safe."""
        self.stages.interrupt()

    def close(self) -> None:
        """End its processes; open requests end with ClusterClosedError. Thread-safe."""
        with self._lock:
            self.state = ClusterState.CLOSED
            cleanup = self._parts.cleanup.pop_all() if self._parts is not None else ExitStack()
        cleanup.close()

    @property
    def _running(self) -> Parts:
        assert self._parts is not None, "it is there once `assemble` has returned"  # noqa: S101
        return self._parts

    def _has_room(self, request: Request) -> bool:
        most = self.model.limits.kv_tokens
        return most is None or len(request.prompt) + request.max_tokens <= most

    def _on_loss(self, loss: Loss) -> None:
        if self._parts is not None and self.state is not ClusterState.CLOSED:
            tell_requests(self._parts.engine, loss)

    def _recover(self, is_recovering: bool) -> None:
        self._become(ClusterState.RECOVERING if is_recovering else ClusterState.READY)

    def _fail(self, error: TbclusterError) -> None:
        with self._lock:
            if self.state in (ClusterState.CLOSED, ClusterState.FAILED):
                return
            # First: whoever looks for a replica now passes it over.
            self.state, self.failure = ClusterState.FAILED, error
        self.engine.close(self._hooks.on_failure(self.model.replica, error))

    def _become(self, state: ClusterState) -> None:
        with self._lock:
            if self.state not in (ClusterState.CLOSED, ClusterState.FAILED):
                self.state = state
