"""The thread that keeps the stages of a replica running: it does what `Recovery` decides, and tells
it what came of that.

A loss is heard twice: whoever sees it pauses the requests at once; this thread then brings the
stages back, checks what they compute, and lets the requests go on.
"""

import logging
import time
from collections import deque
from functools import partial
from math import inf
from typing import assert_never

from tbcluster.cluster.news import (
    ExaminationDue,
    Examined,
    News,
    NodesChanged,
    PathImproved,
    PathLost,
    StageBroken,
    StageExited,
)
from tbcluster.cluster.recovery.guard import Guard
from tbcluster.cluster.recovery.machine import (
    Action,
    Consider,
    GiveUp,
    Mend,
    Nodes,
    Pause,
    Phase,
    PlanAgain,
    Recovery,
    Serve,
    Starve,
    Switch,
)
from tbcluster.cluster.recovery.record import RecoveryBook, RecoveryKind
from tbcluster.cluster.recovery.tended import Replanner, Tended
from tbcluster.cluster.status import ClusterState
from tbcluster.engine.examination import Examination
from tbcluster.errors import (
    ClusterClosedError,
    NoPathError,
    ParityError,
    StageError,
    StageLostError,
    TbclusterError,
)

logger = logging.getLogger(__name__)

# How often is looked whether something waits for time to pass: a better way, a better plan.
LOOK_S = 1.0
# For how long a way between two stages is waited for, before they are placed elsewhere.
NO_WAY_S = 10.0
# Whoever watches a worker ends it when it makes no progress; here nothing is waited for for ever.
SILENT_S = 900.0


class Keeper:
    """Keeps a replica that was opened running.

    Args:
        epoch: The one that the stages were loaded with.
        replanner: None on one machine.
    """

    def __init__(
        self,
        replica: Tended,
        epoch: int,
        replanner: Replanner | None,
        book: RecoveryBook,
        guard: Guard,
    ) -> None:
        self._replica = replica
        self._replanner = replanner
        self._book = book
        self._guard = guard
        nodes = replica.model.nodes
        self._recovery = (
            Recovery(frozenset(nodes), epoch, _now(), replanner.seen)
            if nodes is not None and replanner is not None
            else Recovery(None, epoch, _now())
        )
        self._num_tokens = 0

    def run(self) -> None:
        """Loop until the stages are interrupted or cannot be kept running."""
        try:
            # Who came, went or was drained while it was loaded was not looked at.
            self._perform(self._recovery.nodes_changed(_now(), self._usable()))
            while True:
                self._turn()
        except ClusterClosedError as error:
            # The replica may be open still, and only the rack closed.
            self._replica.engine.close(error)
        except TbclusterError as error:
            self._end(error)
        except Exception as error:  # the top loop: requests must not wait for it for ever
            logger.exception("looking after the stages failed")
            self._end(StageError(f"looking after the stages failed: {error}"))

    def _end(self, error: TbclusterError) -> None:
        self._replica.give_up(error)
        # What nobody will use takes memory, and listens.
        self._replica.stages.close()

    def _turn(self) -> None:
        news = self._replica.stages.next_news(timeout_s=self._pause_s())
        self._perform(self._heard(news) if news is not None else self._looked())

    def _pause_s(self) -> float | None:
        """How long nothing may be heard before something is to be looked at; None for ever."""
        due_s = self._guard.due_in(_now()) if self._recovery.phase is Phase.SERVING else inf
        waits = self._recovery.wants_ticks or self._replica.stages.is_better_way()
        pause_s = min(due_s, LOOK_S) if waits else due_s
        return None if pause_s == inf else pause_s

    def _heard(self, news: News) -> list[Action]:
        now, usable = _now(), self._usable()
        match news:
            case StageExited(node=node):
                return self._lost(str(news), node=node)
            case PathLost():
                return self._lost(str(news), is_way=True)
            case StageBroken(error=error, node=node):
                logger.warning("%s", error)
                return self._recovery.broke(now, usable, error, node)
            case NodesChanged():
                return self._recovery.nodes_changed(now, usable)
            case PathImproved():
                is_idle = self._replica.engine.num_open == 0
                return self._recovery.way_improved(now, is_idle=is_idle)
            case Examined(result=result):
                return self._judge(result)
            case ExaminationDue():
                if self._recovery.phase is Phase.SERVING:
                    self._guard.examine(self._replica.engine)
                return []
            case _:
                assert_never(news)

    def _looked(self) -> list[Action]:
        """Time has passed."""
        now, is_idle = _now(), self._replica.engine.num_open == 0
        if self._recovery.phase is Phase.SERVING and self._guard.due_in(now) <= 0:
            self._guard.examine(self._replica.engine)
        if self._replica.stages.is_better_way():
            return self._recovery.way_improved(now, is_idle=is_idle)
        return self._recovery.ticked(now, self._usable(), is_idle=is_idle)

    def _lost(self, what: str, *, node: str | None = None, is_way: bool = False) -> list[Action]:
        logger.warning("%s", what)
        self._book.noticed(what)
        num_tokens = self._replica.engine.statistics.num_generated_tokens
        has_answered, self._num_tokens = num_tokens > self._num_tokens, num_tokens
        return self._recovery.lost(
            _now(), self._usable(), node=node, what=what, is_way=is_way, has_answered=has_answered
        )

    def _judge(self, result: Examination | TbclusterError) -> list[Action]:
        if self._recovery.phase is not Phase.SERVING:
            # It may be of other stages than those that come next.
            self._guard.missed(_now())
            return []
        stages = self._replica.stages
        wrong = self._guard.judge(result, len(stages.statuses), _now())
        if wrong is None:
            return []
        suspects = range(wrong.first, wrong.last + 1)
        names = " or ".join(f"stage {stages.statuses[stage].index}" for stage in suspects)
        what = f"{names} computes something else than when it was loaded"
        self._book.noticed(what)
        self._replica.pause()
        # They end, and what they held is read from the disk again.
        stages.stop(suspects)
        node = stages.statuses[wrong.first].node if len(suspects) == 1 else None
        return self._lost(what, node=node)

    # What is decided

    def _perform(self, actions: list[Action]) -> None:
        left = deque(actions)
        while left:
            left.extend(self._do(left.popleft()))

    def _do(self, action: Action) -> list[Action]:
        """Perform it; gives what follows from what came of it."""
        match action:
            case Pause():
                self._pause()
            case Mend(epoch=epoch, restarts_all=restarts_all):
                return self._mend(epoch, restarts_all=restarts_all)
            case PlanAgain():
                return self._plan_again()
            case Switch(epoch=epoch):
                return self._switch(epoch)
            case Serve():
                self._serve()
            case Consider():
                return self._consider()
            case Starve(error=error):
                logger.warning("%s", error)
                self._replica.engine.starve(error)
                self._replica.become(ClusterState.STARVED, str(error))
                self._leave_unusable()
            case GiveUp(error=error):
                raise error
            case _:
                assert_never(action)
        return []

    def _pause(self) -> None:
        self._book.noticed("other nodes, or other ways, can be used now")
        self._replica.become(ClusterState.RECOVERING, "bringing the stages back")
        self._replica.pause()

    def _mend(self, epoch: int, *, restarts_all: bool) -> list[Action]:
        """Connect what is alive anew, and start all that are dead by now."""
        stages = self._replica.stages
        self._replica.engine.begin_epoch(epoch)
        if restarts_all:
            stages.stop(range(len(stages.statuses)))
        dead = stages.dead_stages()
        for stage in dead:
            status = stages.statuses[stage]
            logger.warning("stage %d has ended: starting it again", status.index)
            status.num_restarts += 1
            self._replica.become(ClusterState.RECOVERING, f"stage {status.index} is started again")
            try:
                stages.start(stage, epoch)
            except TbclusterError as error:
                return self._recovery.broke(_now(), self._usable(), error, status.node)
        self._book.does(RecoveryKind.RESTART if dead else RecoveryKind.REROUTE)
        if not dead:
            stages.reroute()
        return self._await_well()

    def _plan_again(self) -> list[Action]:
        replanner = self._replanner
        assert replanner is not None  # noqa: S101 - without one nodes are never looked at
        self._replica.become(ClusterState.RECOVERING, "planning for the nodes that are there")
        watch = _NodeWatch(replanner)
        nodes = self._recovery.usable(_now(), watch.seen)
        try:
            if not replanner.plan(nodes):
                return self._recovery.fits_already(_now())
            self._replica.become(ClusterState.RECOVERING, "fetching what the new plan needs")
            self._prepared = replanner.prepare(watch.has_changed)
        except ClusterClosedError:
            if not watch.did_change:
                raise
            return self._recovery.nodes_changed(_now(), self._usable())
        except TbclusterError as error:
            self._replica.become(ClusterState.RECOVERING, f"waiting for nodes: {error}")
            return self._recovery.no_room(_now(), error)
        return self._recovery.prepared(_now(), frozenset(self._prepared.nodes or ()))

    def _switch(self, epoch: int) -> list[Action]:
        self._book.does(RecoveryKind.REPLAN)
        self._replica.become(ClusterState.RECOVERING, "loading by another plan")
        # Even should it fail, other stages may be in force by then.
        self._guard.forget()
        try:
            self._replica.switch(self._prepared, epoch)
        except ClusterClosedError:
            raise
        except TbclusterError as error:
            nodes = frozenset(self._replica.model.nodes or ())
            logger.warning("%s", error)
            return self._recovery.switch_failed(_now(), self._usable(), nodes, error)
        return self._await_well()

    def _await_well(self) -> list[Action]:
        """Follow the stages until they take steps, and check what they compute."""
        stages, had_way_at = self._replica.stages, _now()
        stages.heard_at = had_way_at
        while not stages.is_ready():
            news = stages.next_news(until_ready=True, timeout_s=LOOK_S)
            if news is not None and (actions := self._heard_meanwhile(news)):
                return actions
            far, now = stages.unreachable, _now()
            if far is None:
                had_way_at = now
            elif now - had_way_at > NO_WAY_S:
                error = NoPathError(f"no way to {far} has opened")
                return self._recovery.broke(now, self._usable(), error, far)
            if now - stages.heard_at > SILENT_S:
                return self._lost("the stages were silent while they were loaded", is_way=True)
        self._book.loaded()
        try:
            self._replica.check()
        except StageLostError:
            return self._await_loss()
        except ParityError as error:
            return self._is_wrong(error)
        except ClusterClosedError:
            raise
        except TbclusterError as error:
            return self._lost(str(error), is_way=True)
        return self._recovery.mended(_now())

    def _is_wrong(self, error: ParityError) -> list[Action]:
        """The output is not what it should be: on a rack the stage at fault finds another node."""
        on_rack = self._replanner is not None
        suspects = self._guard.find(self._replica.engine) if on_rack else None
        if suspects is None or suspects.first != suspects.last:
            return self._recovery.broke(_now(), self._usable(), error)
        status = self._replica.stages.statuses[suspects.first]
        wrong = StageError(f"stage {status.index} is at fault: {error}")
        logger.warning("%s", wrong)
        self._replica.stages.stop({suspects.first})
        return self._recovery.broke(_now(), self._usable(), wrong, status.node)

    def _await_loss(self) -> list[Action]:
        """A stage was lost during the check: its news are on the way."""
        while True:
            news = self._replica.stages.next_news(timeout_s=LOOK_S)
            if news is None:
                return self._lost("a step was lost during the check", is_way=True)
            if actions := self._heard_meanwhile(news):
                return actions

    def _heard_meanwhile(self, news: News) -> list[Action]:
        """What is of no use while the stages are brought back is passed over."""
        if isinstance(news, Examined):
            self._guard.missed(_now())
        if isinstance(news, PathImproved | Examined | ExaminationDue):
            return []
        return self._heard(news)

    def _serve(self) -> None:
        self._num_tokens = self._replica.engine.statistics.num_generated_tokens
        epoch = self._recovery.epoch
        self._book.opened(epoch)
        self._replica.become(ClusterState.READY)
        self._replica.engine.open(partial(self._book.resumed, epoch))
        logger.warning("all stages are ready again")

    def _consider(self) -> list[Action]:
        """Whether nodes that are not in the plan would make it better, or ways that were missing
        when it was made."""
        replanner, nodes = self._replanner, frozenset(self._replica.model.nodes or ())
        if replanner is None:
            return []
        now, watch, stages = _now(), _NodeWatch(replanner), self._replica.stages
        usable = self._recovery.usable(now, watch.seen)
        if not replanner.lacked_ways:
            if watch.seen <= nodes:
                return []
            if usable <= nodes:
                # The others are left out for a while.
                return self._recovery.is_no_better(now)
        if not replanner.is_settled():
            return self._recovery.is_unsettled(now)
        try:
            if not (replanner.plan(usable) and self._recovery.is_worth(replanner.gain)):
                return self._recovery.is_no_better(now)
            self._prepared = replanner.prepare(lambda: watch.has_changed() or stages.is_broken())
        except ClusterClosedError:
            # What made it give up is told by other news; nodes may be as they were by then.
            return self._recovery.is_unsettled(_now())
        except TbclusterError as error:
            logger.info("no better plan: %s", error)
            return self._recovery.is_no_better(_now())
        return self._recovery.is_better(_now(), frozenset(self._prepared.nodes or ()))

    def _leave_unusable(self) -> None:
        """Nobody waits for these stages now, and their nodes may be about to be switched off."""
        stages, usable = self._replica.stages, self._usable()
        dead = set(stages.dead_stages())
        left = {n for n, status in enumerate(stages.snapshot()) if status.node not in usable} - dead
        if self._replanner is not None and left:
            stages.stop(left)

    def _usable(self) -> Nodes:
        return self._replanner.usable() if self._replanner is not None else frozenset()


class _NodeWatch:
    """Whether the nodes that can be used have changed, if only for a moment."""

    def __init__(self, replanner: Replanner) -> None:
        self.seen = replanner.usable()
        self.did_change = False
        self._replanner = replanner

    def has_changed(self) -> bool:
        """Looks."""
        self.did_change = self.did_change or self._replanner.usable() != self.seen
        return self.did_change


def _now() -> float:
    return time.monotonic()
