"""What to do about a loss. Pure: what happened comes in with its time, actions go out.

    SERVING ──lost──▶ MENDING ──mended──▶ SERVING
       │                 │ a node of the plan is gone
       └──nodes gone──▶ PLANNING ──prepared──▶ SWITCHING ──mended──▶ SERVING
                         │    ▲ nodes came
                         └──no room──▶ WAITING ──after a while──▶ STARVED

Each action is performed before the next event is told, and what it comes to is an event itself.
Requests are paused before anything else is done, and go on with `Serve`. Each try to bring the
stages back has an epoch of its own, so that what an earlier one left on its way counts no more.
"""

from dataclasses import dataclass
from enum import StrEnum

from tbcluster.errors import StageError, StarvedError, TbclusterError

# So many tries in a row that did not lead to answers: the stage, or its node, is given up.
MAX_TRIES = 5
# A way that is lost again and again may be a worker's fault: then all are started again.
TRIES_BEFORE_RESTART = 2
# Ways are lost one after the other when a cable is pulled: within so long they are one loss.
SAME_LOSS_S = 3.0
# Whoever has served for so long, or has answered anything, has come back for good.
STEADY_S = 5.0
# For so long a node on which a stage cannot be kept running is left out.
EXCLUDED_S = 600.0
# What fits nowhere waits so long, from the loss on, for a node that is only started again.
WAIT_S = 10.0
# After so long a rack that has too little looks again: disks and the internet tell nobody.
LOOK_AGAIN_S = 30.0
# Nodes that came are looked at when links to them have been measured: not before that. What is no
# better then may be later, when all ways answer again: it is looked at after ever longer pauses.
SETTLE_S, MAX_LOOK_S = 3.0, 600.0
# A better plan waits for a moment without requests; after so long running ones are paused for it.
SWITCH_PATIENCE_S = 120.0
# So much more throughput a better plan must give: a switch costs a load and a prefill.
MIN_GAIN = 1.10


class Phase(StrEnum):
    """What is being done."""

    SERVING = "serving"
    MENDING = "mending"
    PLANNING = "planning"
    SWITCHING = "switching"
    WAITING = "waiting"
    STARVED = "starved"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Pause:
    """Let running requests wait, with the tokens they have."""


@dataclass(frozen=True, slots=True)
class Mend:
    """Begin this epoch with the stages as they are placed: start those that are dead, or all, and
    connect them anew; then check the output. Comes to `mended`, `lost` or `broke`."""

    epoch: int
    restarts_all: bool = False


@dataclass(frozen=True, slots=True)
class PlanAgain:
    """Make a plan for the nodes that are usable, and fetch what they lack for it. Comes to
    `prepared`, `fits_already`, `no_room` or, when nodes come and go meanwhile, `nodes_changed`."""


@dataclass(frozen=True, slots=True)
class Switch:
    """Begin this epoch with the stages of the plan that was prepared. Comes to the same as
    `Mend`."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Serve:
    """Let requests go on."""


@dataclass(frozen=True, slots=True)
class Starve:
    """End all requests with this error, and whatever comes, until `Serve`. Stages may go."""

    error: StarvedError


@dataclass(frozen=True, slots=True)
class Consider:
    """Look whether a plan with the nodes that came back is worth a switch, and have them fetch what
    it needs, while requests go on. Comes to `is_better`, `is_unsettled` or `is_no_better`."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No more requests can be answered, for this reason."""

    error: TbclusterError


Action = Pause | Mend | PlanAgain | Switch | Serve | Starve | Consider | GiveUp
Nodes = frozenset[str]


class Recovery:
    """One replica's way from a loss back to answers.

    Args:
        nodes: Where its stages are; None for one machine, where there is no other place.
        epoch: The one that the stages were loaded with.
        now: Seconds, as in all methods; `usable` are the nodes that stages can be on now.
        seen: The nodes that were there when it was placed; None for `nodes` alone.
    """

    def __init__(
        self, nodes: Nodes | None, epoch: int, now: float, seen: Nodes | None = None
    ) -> None:
        self.phase = Phase.SERVING
        self.epoch = epoch
        self._nodes = nodes
        self._since = self._paused_at = now
        # What is missing, while nodes are waited for; whether requests were told.
        self._lacking: StarvedError | None = None
        self._has_starved = False
        self._num_tries = 0
        self._counted_at = float("-inf")
        self._excluded: dict[str, float] = {}
        self._seen: Nodes = (nodes or frozenset()) if seen is None else seen
        # Nodes of a better plan that is prepared, and since when.
        self._better: Nodes | None = None
        self._better_since = 0.0
        # When to look whether there is one.
        self._look_at: float | None = None
        self._look_pause_s = SETTLE_S

    # What happened

    def lost(
        self,
        now: float,
        usable: Nodes,
        *,
        node: str | None = None,
        what: str = "a stage was lost",
        is_way: bool = False,
        has_answered: bool = False,
    ) -> list[Action]:
        """A stage, a way between two, or a step is gone, or what a stage computes is wrong.

        Args:
            node: Where the stage is, if it is a stage.
            what: In words.
            is_way: Whether it is not a stage but what connects them.
            has_answered: Whether requests got tokens since they went on.
        """
        if self.phase is Phase.FAILED:
            return []
        if self.phase in (Phase.WAITING, Phase.STARVED):
            # No try has failed: stages end with the nodes that are left.
            return self._bring_back(now, usable)
        actions: list[Action] = []
        if self.phase is Phase.SERVING:
            actions.append(self._pause(now))
            if has_answered or now - self._since >= STEADY_S:
                self._num_tries = 0
        if not is_way or now >= self._counted_at + SAME_LOSS_S:
            self._num_tries += 1
            self._counted_at = now
        if self._num_tries > MAX_TRIES:
            error = StageError(f"{what} again and again: given up")
            if self._nodes is None:
                return [*actions, self._fail(error)]
            if node is None:
                self._num_tries = 0
                return [*actions, *self.no_room(now, error)]
            self._exclude(node, now)
        self._better = None
        return [*actions, *self._bring_back(now, usable, restarts_all=self._restarts_all(is_way))]

    def broke(
        self, now: float, usable: Nodes, error: TbclusterError, node: str | None = None
    ) -> list[Action]:
        """Trying again would not help: a stage cannot be loaded on its node, or what all of them
        compute is wrong."""
        if self.phase is Phase.FAILED:
            return []
        if self._nodes is None or node is None:
            return [self._fail(error)]
        self._exclude(node, now)
        return self._bring_back(now, usable)

    def nodes_changed(self, now: float, usable: Nodes) -> list[Action]:
        """Nodes came, went, or were drained."""
        new = usable - self._seen
        self._seen, self._better = usable, None
        if self._nodes is None:
            return []
        has_all = self._nodes <= self.usable(now, usable)
        match self.phase:
            case Phase.SERVING if not has_all:
                return [self._pause(now), *self._bring_back(now, usable)]
            case Phase.SERVING if new:
                self._look_soon(now)
            case Phase.MENDING | Phase.SWITCHING if not has_all:
                return self._bring_back(now, usable)
            case Phase.PLANNING | Phase.WAITING | Phase.STARVED:
                return self._bring_back(now, usable)
        return []

    def mended(self, now: float) -> list[Action]:
        """All stages take steps, and compute what they should."""
        return self._serve(now)

    def prepared(self, now: float, nodes: Nodes) -> list[Action]:
        """There is a plan for these nodes, and they have what they need for it."""
        self._nodes, self._better = nodes, None
        self.phase = Phase.SWITCHING
        return [Switch(self._next_epoch())]

    def fits_already(self, now: float) -> list[Action]:
        """The best plan is the one in force."""
        self.phase = Phase.MENDING
        return [Mend(self._next_epoch())]

    def no_room(self, now: float, error: TbclusterError) -> list[Action]:
        """There is no plan for the nodes that are left, or they cannot get what it needs."""
        self._lacking = StarvedError(str(error))
        if not self._has_starved and now < self._paused_at + WAIT_S:
            self.phase = Phase.WAITING
            return []
        return self._starve(now, self._lacking)

    def switch_failed(
        self, now: float, usable: Nodes, nodes: Nodes, error: TbclusterError
    ) -> list[Action]:
        """The plan that was prepared does not hold any more, or not all of its stages could be
        started; the plan in force is for `nodes`."""
        self._nodes = nodes
        return self.lost(now, usable, what=str(error))

    def is_unsettled(self, now: float) -> list[Action]:
        """Not all is known yet of the nodes that came."""
        self._look_at = now + SETTLE_S
        return []

    def is_no_better(self, now: float) -> list[Action]:
        """No plan with the nodes that came is worth a switch, as things are now."""
        self._look_pause_s = min(2 * self._look_pause_s, MAX_LOOK_S)
        self._look_at = now + self._look_pause_s
        return []

    def is_better(self, now: float, nodes: Nodes) -> list[Action]:
        """A plan for these nodes is worth a switch, and prepared."""
        if self.phase is Phase.SERVING:
            self._better, self._better_since = nodes, now
        return []

    def way_improved(self, now: float, *, is_idle: bool) -> list[Action]:
        """There is a better way than one that is in use: it is taken while nobody would notice."""
        if self.phase is not Phase.SERVING or not is_idle:
            return []
        self.phase = Phase.MENDING
        return [self._pause(now), Mend(self._next_epoch())]

    def ticked(self, now: float, usable: Nodes, *, is_idle: bool) -> list[Action]:
        """Time has passed.

        Args:
            is_idle: Whether no request is open.
        """
        if self.phase is Phase.STARVED and now - self._since >= LOOK_AGAIN_S:
            return self._bring_back(now, usable)
        is_over = self.phase is Phase.WAITING and now >= self._paused_at + WAIT_S
        if is_over and self._lacking is not None:
            return self._starve(now, self._lacking)
        if self.phase is Phase.SERVING and self._look_at is not None and now >= self._look_at:
            self._look_at = None
            return [Consider()]
        has_waited = is_idle or now - self._better_since >= SWITCH_PATIENCE_S
        if self.phase is Phase.SERVING and self._better is not None and has_waited:
            return [self._pause(now), *self.prepared(now, self._better)]
        return []

    # Facts

    @property
    def wants_ticks(self) -> bool:
        """Whether something waits for time to pass."""
        waits = self.phase in (Phase.WAITING, Phase.STARVED)
        return waits or self._better is not None or self._look_at is not None

    @staticmethod
    def is_worth(gain: float) -> bool:
        """Whether so many times the throughput are worth a switch."""
        return gain >= MIN_GAIN

    def usable(self, now: float, usable: Nodes) -> Nodes:
        """Without the nodes that are left out."""
        return usable - {node for node, until in self._excluded.items() if now < until}

    # How

    def _bring_back(self, now: float, usable: Nodes, *, restarts_all: bool = False) -> list[Action]:
        if self._nodes is not None and not self._nodes <= self.usable(now, usable):
            self.phase = Phase.PLANNING
            return [PlanAgain()]
        self.phase = Phase.MENDING
        return [Mend(self._next_epoch(), restarts_all)]

    def _serve(self, now: float) -> list[Action]:
        self.phase, self._since = Phase.SERVING, now
        self._has_starved = False
        # What came back meanwhile was not looked at.
        if self._nodes is not None:
            self._look_soon(now)
        return [Serve()]

    def _look_soon(self, now: float) -> None:
        self._look_pause_s = SETTLE_S
        self._look_at = now + SETTLE_S

    def _restarts_all(self, is_way: bool) -> bool:
        return is_way and self._num_tries > TRIES_BEFORE_RESTART

    def _pause(self, now: float) -> Pause:
        self._paused_at = now
        return Pause()

    def _starve(self, now: float, lacking: StarvedError) -> list[Action]:
        self.phase, self._since = Phase.STARVED, now
        self._has_starved = True
        return [Starve(lacking)]

    def _exclude(self, node: str, now: float) -> None:
        self._excluded[node] = now + EXCLUDED_S
        self._num_tries = 0

    def _fail(self, error: TbclusterError) -> GiveUp:
        self.phase = Phase.FAILED
        return GiveUp(error)

    def _next_epoch(self) -> int:
        self.epoch += 1
        return self.epoch
