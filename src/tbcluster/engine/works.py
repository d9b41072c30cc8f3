"""What an engine drives."""

from typing import NamedTuple

from tbcluster.engine.caches import CacheBook
from tbcluster.engine.limits import Limits
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.prefix_disk import PrefixDisk
from tbcluster.engine.scheduler import Scheduler


class Works(NamedTuple):
    """Stages as the engine knows them. All of it is exchanged at once, where an epoch begins under
    another plan.

    Attributes:
        disk: Where known prefixes are kept beyond memory, if anywhere.
    """

    pipeline: Pipeline
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
