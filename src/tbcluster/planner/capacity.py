"""How many nodes of a kind serve a model this fast, and what one more node adds. Pure.

Each answer is a plan, made as for a rack that is there. The smallest rack is searched for by
larger and larger steps, then by halving: one node less was planned, too, and does not do.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tbcluster.errors import DoesNotFitError, PlanError
from tbcluster.planner.cost import Promise
from tbcluster.planner.layout import Layouts
from tbcluster.planner.nodes import NodePower, PlanRack
from tbcluster.planner.plan import DEFAULT_CONTEXT, Plan, Wishes
from tbcluster.planner.planning import make_plan
from tbcluster.planner.pod_plans import check_wishes
from tbcluster.planner.profile import ModelProfile
from tbcluster.planner.words import count, speed

MAX_NODES = 64
# More is a slip: no rack of that many nodes comes near it.
MAX_TOKENS_PER_S = 1e6

# So many more than the fewest are looked at one by one.
MANY_MORE = 8

RackOf = Callable[[int], PlanRack]


@dataclass(frozen=True, slots=True)
class Goal:
    """What a rack has to do.

    Attributes:
        tokens_per_s: Of one stream, or of all of `wishes.streams` together.
        max_nodes: Larger racks are not looked at.
    """

    tokens_per_s: float
    wishes: Wishes
    is_total: bool = False
    max_nodes: int = MAX_NODES


@dataclass(frozen=True, slots=True)
class RackFigures:
    """A rack and what it gives.

    Attributes:
        num_used: Nodes that run something.
        tokens_per_s: Of all promised streams; `stream_tokens_per_s` of one alone.
        longest_context: Tokens that one stream alone may have.
        power_w: At the wall while it decodes, idle nodes included; None where a node's is unknown.
        price_usd: None where a node's is unknown.
    """

    num_nodes: int
    num_used: int
    stream_tokens_per_s: float
    tokens_per_s: float
    longest_context: int
    power_w: float | None
    price_usd: float | None


@dataclass(frozen=True, slots=True)
class Sized:
    """The smallest rack of a kind that reaches a goal.

    Attributes:
        figures: None if no rack of this kind does.
        best: Of the racks that were planned the fastest one; None if none holds the model.
        because: Why there is none, or what bounds it.
    """

    figures: RackFigures | None
    best: RackFigures | None
    because: str


@dataclass(frozen=True, slots=True)
class Addition:
    """A rack as it is, and with more; None where the model does not fit."""

    now: RackFigures | None
    then: RackFigures | None


def smallest_rack(profile: ModelProfile, rack_of: RackOf, goal: Goal) -> Sized:
    """The fewest nodes that reach the goal.

    Args:
        rack_of: The rack of so many nodes of the kind in question.

    Raises:
        PlanError: No rack could: the speed or the promise is out of range.
    """
    check_goal(goal)
    check_wishes(profile, goal.wishes)
    racks = _Racks(profile, rack_of, _promised(profile, goal.wishes))
    least = racks.least(goal.max_nodes)
    if least is None:
        return Sized(None, None, f"{count(goal.max_nodes, 'node')} do not hold it")
    number = _first(lambda nodes: _rate(racks.at(nodes), goal) >= goal.tokens_per_s, least, goal)
    best = max(racks.seen, key=lambda figures: (_rate(figures, goal), -figures.num_nodes))
    if number is None:
        return Sized(None, best, _why_not(best, least, goal))
    held = f"{least} hold it" if number > least > 1 else ""
    return Sized(racks.at(number), best, held or ("the fewest that hold it" if least > 1 else ""))


def addition(profile: ModelProfile, now: PlanRack, then: PlanRack, wishes: Wishes) -> Addition:
    """What a rack gives, and a larger one, with the same promise.

    Raises:
        PlanError: The promise is out of range.
    """
    promised = _promised(profile, wishes)
    return Addition(rack_figures(profile, now, promised), rack_figures(profile, then, promised))


def rack_figures(profile: ModelProfile, rack: PlanRack, wishes: Wishes) -> RackFigures | None:
    """What a rack gives; None if the model does not fit."""
    try:
        return _figures(make_plan(profile, rack, wishes), rack)
    except DoesNotFitError:
        return None


def check_goal(goal: Goal) -> None:
    """Raise PlanError for speeds and sizes that nothing can have."""
    rate = goal.tokens_per_s
    if not (math.isfinite(rate) and 0 < rate <= MAX_TOKENS_PER_S):
        raise PlanError(
            f"{rate:g} tokens/s: ask for more than 0 and at most {MAX_TOKENS_PER_S:,.0f}"
        )
    if not 1 <= goal.max_nodes <= MAX_NODES:
        raise PlanError(f"racks of up to {goal.max_nodes:,} nodes: ask for 1 to {MAX_NODES}")


class _Racks:
    """Racks of one kind of node, each planned once."""

    def __init__(self, profile: ModelProfile, rack_of: RackOf, wishes: Wishes) -> None:
        self._profile = profile
        self._rack_of = rack_of
        self._wishes = wishes
        self._promise = Promise(wishes.context or DEFAULT_CONTEXT, wishes.streams)
        self._figures: dict[int, RackFigures] = {}

    @property
    def seen(self) -> list[RackFigures]:
        return list(self._figures.values())

    def at(self, number: int) -> RackFigures:
        """Of a rack that holds the model."""
        if number not in self._figures:
            rack = self._rack_of(number)
            self._figures[number] = _figures(make_plan(self._profile, rack, self._wishes), rack)
        return self._figures[number]

    def least(self, most: int) -> int | None:
        """The fewest nodes that hold the model and the promise: whatever holds them does with one
        node more, too."""
        if not self._fits(most):
            return None
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fits(middle) else (middle, high)
        return high

    def _fits(self, number: int) -> bool:
        return Layouts(self._profile, self._rack_of(number), self._wishes).fits(self._promise)


def _first(is_enough: Callable[[int], bool], least: int, goal: Goal) -> int | None:
    """The first number of nodes from `least` on that is enough; None if none of those looked at
    is."""
    failed = least - 1
    for number in _numbers(least, goal):
        if not is_enough(number):
            failed = number
            continue
        while number - failed > 1:
            middle = (failed + number) // 2
            failed, number = (failed, middle) if is_enough(middle) else (middle, number)
        return number
    return None


def _numbers(least: int, goal: Goal) -> Iterator[int]:
    """Numbers of nodes worth looking at. One stream gains nothing from more than the least; all
    together do, not with each node more, and most with the first ones."""
    step, number = 1, least
    while number < goal.max_nodes:
        yield number
        if not goal.is_total:
            step *= 2
        elif number >= least + MANY_MORE:
            step = max(step, number // 4)
        number += step
    yield goal.max_nodes


def _promised(profile: ModelProfile, wishes: Wishes) -> Wishes:
    """The same promise for every rack, however small: it is never cut down to what fits."""
    context = wishes.context or min(profile.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    return replace(wishes, context=context)


def _rate(figures: RackFigures, goal: Goal) -> float:
    return figures.tokens_per_s if goal.is_total else figures.stream_tokens_per_s


def _why_not(best: RackFigures, least: int, goal: Goal) -> str:
    most = f"{speed(_rate(best, goal))} ({count(best.num_nodes, 'node')})"
    if goal.is_total:
        streams = count(goal.wishes.streams, "stream")
        return (
            f"{streams} together get no more than {most} on the racks looked at, up to "
            f"{count(goal.max_nodes, 'node')}: more streams at once would give more together"
        )
    holding = f"{count(least, 'node')} hold the model, and " if least > 1 else ""
    return (
        f"{holding}one stream never gets more than {most}: its layers run one after the other, and "
        "another node only adds a hop; a faster kind of node, fewer bits or a smaller model would "
        "help"
    )


def _figures(plan: Plan, rack: PlanRack) -> RackFigures:
    busy = _busy_shares(plan)
    watts = [_watts(node.power, busy.get(node.name, 0.0)) for node in rack.nodes]
    return RackFigures(
        num_nodes=len(rack.nodes),
        num_used=len(busy),
        stream_tokens_per_s=max(replica.stream_tokens_per_s for replica in plan.replicas),
        tokens_per_s=sum(replica.tokens_per_s for replica in plan.replicas),
        longest_context=max(replica.longest_context for replica in plan.replicas),
        power_w=_sum(watts),
        price_usd=_sum([node.price_usd for node in rack.nodes]),
    )


def _busy_shares(plan: Plan) -> dict[str, float]:
    """Of each node that runs something, how much of the time it decodes while all promised streams
    do: one stream alone is on one node at a time."""
    shares: defaultdict[str, float] = defaultdict(float)
    for replica in plan.replicas:
        round_s = replica.streams / replica.tokens_per_s
        lanes = Promise(plan.context, replica.streams).num_lanes(len(replica.stages))
        for stage in replica.stages:
            shares[stage.node] += lanes * stage.decode_s / round_s
    return {node: min(1.0, share) for node, share in shares.items()}


def _watts(power: NodePower | None, busy: float) -> float | None:
    return None if power is None else power.idle_w + busy * (power.decode_w - power.idle_w)


def _sum(figures: list[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) if len(known) == len(figures) else None
