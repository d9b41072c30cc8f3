"""Follows the stage workers and starts again those that die.

A loss is told twice: `on_loss` ends the running requests at once, in the thread that saw it;
`run` then brings the stages back, in an epoch of its own, and checks parity before it opens again.
"""

import logging
import time
from collections.abc import Callable

from tbcluster.cluster.parity_check import ParityCheck
from tbcluster.cluster.restarts import RestartBudget
from tbcluster.cluster.stages import StageExited, StageSet
from tbcluster.engine.engine import Engine
from tbcluster.errors import StageError, StageLostError, TbclusterError

logger = logging.getLogger(__name__)


class StageWatcher:
    """Keeps a set of loaded stages running.

    Args:
        epoch: The one that the stages were started with.
        on_recovering: Called when a loss is being dealt with, with True, and with False when all is
            well again.
        on_failure: Called, last, with the reason why no more requests can be answered.
    """

    def __init__(
        self,
        stages: StageSet,
        engine: Engine,
        parity: ParityCheck,
        epoch: int,
        on_recovering: Callable[[bool], None],
        on_failure: Callable[[TbclusterError], None],
    ) -> None:
        self._stages = stages
        self._engine = engine
        self._parity = parity
        self._epoch = epoch
        self._on_recovering = on_recovering
        self._on_failure = on_failure
        self._budgets = [RestartBudget() for _ in stages.statuses]

    def run(self) -> None:
        """Loop until the stages are interrupted or cannot be kept running."""
        try:
            while True:
                self._recover(self._stages.next_exit())
        except TbclusterError as error:
            self._on_failure(error)
        except Exception as error:  # the top loop: requests must not wait for it for ever
            logger.exception("watching the stages failed")
            self._on_failure(StageError(f"watching the stages failed: {error}"))

    def _recover(self, exited: StageExited | None) -> None:
        self._on_recovering(True)
        if exited is not None:
            logger.warning("stage %d %s", exited.stage, exited.what)
        while exited is not None:
            self._restart_dead_stages(exited)
            exited = self._stages.next_exit(until_ready=True) or self._lost_in_parity_check()
        self._engine.open()
        self._on_recovering(False)
        logger.warning("all stages are ready again")

    def _restart_dead_stages(self, exited: StageExited) -> None:
        """Start all that are dead by now, of which `exited` is one."""
        self._epoch += 1
        self._engine.begin_epoch(self._epoch)
        for stage in self._stages.dead_stages():
            if not self._budgets[stage].take(time.monotonic()):
                raise StageError(f"stage {stage} {exited.what} again and again: given up")
            logger.warning("stage %d has ended: starting it again", stage)
            self._stages.statuses[stage].num_restarts += 1
            self._stages.start(stage, self._epoch)

    def _lost_in_parity_check(self) -> StageExited | None:
        try:
            self._parity.run(self._engine)
        except StageLostError:
            return self._stages.next_exit()
        return None


def tell_requests(engine: Engine, exited: StageExited) -> None:
    """End what was running through a stage that died; what waits goes on waiting."""
    engine.hold()
    engine.fail_running(
        StageLostError(
            f"stage {exited.stage} {exited.what}, so this answer cannot be finished; the stage is "
            "being started again: send the request again"
        )
    )
