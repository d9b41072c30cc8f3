"""Follows the stages, starts again those that die, and connects them anew when a way is cut.

A loss is told twice: `on_loss` ends the running requests at once, in the thread that saw it;
`run` then brings the stages back, in an epoch of its own, and checks parity before it opens again.
"""

import logging
import time
from collections.abc import Callable

from tbcluster.cluster.restarts import RestartBudget
from tbcluster.cluster.stages import Loss, PathImproved, PathLost, StageExited, StageSet
from tbcluster.engine.engine import Engine
from tbcluster.errors import StageError, StageLostError, TbclusterError

logger = logging.getLogger(__name__)

# A better way that was found while requests were running is taken when none are: looked so often.
BETTER_WAY_S = 2.0


class StageWatcher:
    """Keeps a set of loaded stages running.

    Args:
        check: Raises unless the stages compute what they should (StageLostError: one was lost).
        epoch: The one that the stages were started with.
        on_recovering: Called when a loss is being dealt with, with True, and with False when all is
            well again.
        on_failure: Called, last, with the reason why no more requests can be answered.
    """

    def __init__(
        self,
        stages: StageSet,
        engine: Engine,
        check: Callable[[], None],
        epoch: int,
        on_recovering: Callable[[bool], None],
        on_failure: Callable[[TbclusterError], None],
    ) -> None:
        self._stages = stages
        self._engine = engine
        self._check = check
        self._epoch = epoch
        self._on_recovering = on_recovering
        self._on_failure = on_failure
        self._budgets = [RestartBudget() for _ in stages.statuses]

    def run(self) -> None:
        """Loop until the stages are interrupted or cannot be kept running."""
        try:
            timeout_s = None
            while True:
                news = self._stages.next_news(timeout_s=timeout_s)
                if isinstance(news, PathImproved):
                    self._take_better_way()
                elif news is not None:
                    self._recover(news)
                timeout_s = BETTER_WAY_S if self._stages.is_better_way() else None
        except TbclusterError as error:
            self._on_failure(error)
            # What nobody will use takes memory, and listens.
            self._stages.close()
        except Exception as error:  # the top loop: requests must not wait for it for ever
            logger.exception("watching the stages failed")
            self._on_failure(StageError(f"watching the stages failed: {error}"))

    def _recover(self, loss: Loss | None) -> None:
        self._on_recovering(True)
        if loss is not None:
            logger.warning("%s", loss)
        while loss is not None:
            self._mend(loss)
            loss = self._next_loss() or self._lost_in_parity_check()
        self._engine.open()
        self._on_recovering(False)
        logger.warning("all stages are ready again")

    def _mend(self, loss: Loss) -> None:
        """Connect what is alive anew, and start all that are dead by now."""
        self._epoch += 1
        self._engine.begin_epoch(self._epoch)
        if not isinstance(loss, StageExited):
            self._stages.reroute()
        for stage in self._stages.dead_stages():
            if not self._budgets[stage].take(time.monotonic()):
                raise StageError(f"{loss} again and again: given up")
            status = self._stages.statuses[stage]
            logger.warning("stage %d has ended: starting it again", status.index)
            status.num_restarts += 1
            self._stages.start(stage, self._epoch)

    def _take_better_way(self) -> None:
        """Connect the stages anew while nobody would notice."""
        self._engine.hold()
        if self._engine.num_open == 0:
            self._epoch += 1
            self._engine.begin_epoch(self._epoch)
            self._stages.reroute()
            loss = self._next_loss() or self._lost_in_parity_check()
            if loss is not None:
                self._recover(loss)
            logger.warning("the stages are connected along a better way")
        self._engine.open()

    def _next_loss(self) -> Loss | None:
        """The next loss, or None when all stages are ready."""
        news = self._stages.next_news(until_ready=True)
        return None if isinstance(news, PathImproved) else news

    def _lost_in_parity_check(self) -> Loss | None:
        try:
            self._check()
        except StageLostError:
            while True:
                news = self._stages.next_news()
                if isinstance(news, StageExited | PathLost):
                    return news
        return None


def tell_requests(engine: Engine, loss: Loss) -> None:
    """End what was running through a stage or a way that is gone; what waits goes on waiting."""
    engine.hold()
    engine.fail_running(
        StageLostError(f"{loss}, so this answer cannot be finished: send the request again")
    )
