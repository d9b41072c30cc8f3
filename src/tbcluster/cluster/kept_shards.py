"""Plans that leave loaded what is loaded. Pure.

Two plans of equal speed may differ in how much has to be read from disks, or fetched, before
anything is answered again: what a stage needs is there where it ran before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from math import perm

from tbcluster.core import StageRange
from tbcluster.errors import PlanError
from tbcluster.planner.plan import Plan, PlannedReplica, PlannedStage

# So much slower a plan may be whose shards are there: a recovery does not wait for what a later
# switch would not be worth.
MAX_LOSS = 1 / 1.1
# More ways to put new nodes in the place of lost ones are not tried.
MAX_TRIED = 24

Stages = list[tuple[str, StageRange]]


def keep_shards(
    plan: Plan,
    before: PlannedReplica,
    nodes: Sequence[str],
    try_layout: Callable[[Stages], Plan],
) -> Plan:
    """The plan, or another one which is hardly slower and of which more is loaded.

    Args:
        plan: The best one of one replica, for these nodes.
        before: As the replica is placed now.
        try_layout: Makes the plan of a layout, as if by hand; PlanError if it cannot be.
    """
    best, best_bytes = plan, kept_bytes(plan.replicas[0], before)
    for stages in _layouts(plan.replicas[0], before, nodes):
        try:
            other = try_layout(stages)
        except PlanError:
            continue
        num_bytes = kept_bytes(other.replicas[0], before)
        is_fast = other.replicas[0].tokens_per_s >= MAX_LOSS * plan.replicas[0].tokens_per_s
        if is_fast and num_bytes > best_bytes:
            reasons = ("what is loaded stays where it is", *plan.reasons)
            best_bytes = num_bytes
            best = replace(other, reasons=reasons, left_out=(), is_by_hand=False)
    return best


def kept_bytes(replica: PlannedReplica, before: PlannedReplica) -> int:
    """Bytes of weights of the stages that are the same, on the same nodes."""
    there = {_place(stage) for stage in before.stages}
    return sum(stage.weight_bytes for stage in replica.stages if _place(stage) in there)


def _layouts(
    planned: PlannedReplica, before: PlannedReplica, nodes: Sequence[str]
) -> Iterator[Stages]:
    """Other nodes in the place of those that are gone; then the planned ranges, each where it was,
    if it was anywhere."""
    gone = [stage.node for stage in before.stages if stage.node not in nodes]
    lost = list(dict.fromkeys(gone))
    spare = [node for node in nodes if node not in {stage.node for stage in before.stages}]
    if lost and perm(len(spare), len(lost)) <= MAX_TRIED:
        for chosen in permutations(spare, len(lost)):
            instead = dict(zip(lost, chosen, strict=True))
            yield [(instead.get(stage.node, stage.node), stage.layers) for stage in before.stages]
    yield _back_where_they_were(planned, before, nodes)


def _back_where_they_were(
    planned: PlannedReplica, before: PlannedReplica, nodes: Sequence[str]
) -> Stages:
    """The planned ranges; who had one of them gets it back, in exchange for its own."""
    stages = [(stage.node, stage.layers) for stage in planned.stages]
    had = {(s.layers.start, s.layers.end): s.node for s in before.stages if s.node in nodes}
    for index, (node, layers) in enumerate(stages):
        owner = had.get((layers.start, layers.end), node)
        for other, (holder, theirs) in enumerate(stages):
            if holder == owner and other != index:
                stages[other] = node, theirs
        stages[index] = owner, layers
    return stages


def _place(stage: PlannedStage) -> tuple[str, int, int]:
    return stage.node, stage.layers.start, stage.layers.end
