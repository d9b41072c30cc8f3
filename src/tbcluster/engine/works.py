"""What an engine drives."""

from typing import NamedTuple, Protocol

from tbcluster.core import MicroBatch, StepResult
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.limits import Limits
from tbcluster.engine.prefix_disk import PrefixDisk
from tbcluster.engine.scheduler import Scheduler
from tbcluster.wire.operations import CacheOperation


class Steps(Protocol):
    """Where steps go and come from: `engine.pipeline.Pipeline`, or one that is simulated."""

    def submit(
        self, micro_batch: MicroBatch | None, operations: tuple[CacheOperation, ...] = ()
    ) -> int: ...

    def collect(self, timeout_s: float | None) -> StepResult | None: ...

    def wake(self) -> None: ...

    def forget(self) -> None: ...

    def begin_epoch(self, epoch: int) -> None: ...


class Works(NamedTuple):
    """Stages as the engine knows them. All of it is exchanged at once, where an epoch begins under
    another plan.

    Attributes:
        disk: Where known prefixes are kept beyond memory, if anywhere.
    """

    pipeline: Steps
    scheduler: Scheduler
    caches: CacheBook
    limits: Limits
    disk: PrefixDisk | None = None

    def forget(self) -> None:
        """Whatever the stages hold in memory counts as gone, and what is on its way as lost."""
        self.scheduler.reset()
        self.caches.clear()
        self.pipeline.forget()
        if self.disk is not None:
            self.disk.clear()
