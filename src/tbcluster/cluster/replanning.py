"""A plan for one replica whose nodes are not all there any more, beside all that stays. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from tbcluster.cluster.layout import Layout
from tbcluster.cluster.opening import OpenedModel, plan_model
from tbcluster.cluster.served_model import ServedModel
from tbcluster.errors import DoesNotFitError, PlanError
from tbcluster.planner.nodes import PlanRack
from tbcluster.planner.plan import Plan, PlannedReplica, Wishes


class Placed(NamedTuple):
    """A replica in force."""

    planned: PlannedReplica
    model: ServedModel


def plan_one(
    opened: OpenedModel,
    rack: PlanRack,
    wishes: Wishes,
    by_hand: Layout = (),
    *,
    keeps_promise: bool = False,
) -> Plan:
    """One replica on these nodes, as near as can be to what was wished for: the layout by hand if
    its nodes are there, so many stages if that can be, and if all else does not fit fewer streams
    at once, then a shorter context.

    Args:
        wishes: Those of the whole model, but for the streams: this replica's own.
        by_hand: Of this replica.
        keeps_promise: Whether less than the context and the streams that were asked for will not
            do.

    Raises:
        DoesNotFitError: There is too little memory, even for the least; it says how much.
        PlanError: There is no node, or the model cannot be cut as it would have to be.
    """
    wishes = replace(wishes, replicas=1, plan_file="")
    refused: PlanError | None = None
    for tried, layout, note in _ways(rack, wishes, by_hand, keeps_promise=keeps_promise):
        try:
            plan = plan_model(opened, rack, tried, layout)
        except DoesNotFitError as error:
            refused = error
        except PlanError as error:
            # That too many stages were asked for says less than what is missing.
            refused = refused or error
        else:
            return replace(plan, reasons=(note, *plan.reasons)) if note else plan
    raise refused or PlanError(f"{opened.name} cannot be planned")


def _ways(
    rack: PlanRack, wishes: Wishes, by_hand: Layout, *, keeps_promise: bool
) -> Iterator[tuple[Wishes, Layout, str]]:
    """What to try, best first: wishes, a layout by hand, and a note for people."""
    there = {node.name for node in rack.nodes}
    note = ""
    if by_hand:
        gone = sorted({node for stages in by_hand for node, _ in stages} - there)
        if not gone:
            yield wishes, by_hand, ""
        note = (
            f"layers were given by hand for {', '.join(gone)}: placed anew without"
            if gone
            else ("what was given by hand does not fit any more: placed anew")
        )
    yield wishes, (), note
    if wishes.stages is not None:
        yield (
            replace(wishes, stages=None),
            (),
            f"{wishes.stages} stages were asked for, and the nodes that are there allow others",
        )
    if keeps_promise:
        return
    less = replace(wishes, stages=None, streams=1)
    if wishes.context is not None:
        yield less, (), f"{wishes.streams} streams at once were asked for: there is room for 1"
    yield (
        replace(less, context=None),
        (),
        "there is less room than was asked for: as much context as fits",
    )


def memory_taken(replicas: Iterable[PlannedReplica], beside: Mapping[str, int]) -> dict[str, int]:
    """Bytes by node that these replicas take, beside what else is taken."""
    taken = Counter(beside)
    for replica in replicas:
        for stage in replica.stages:
            taken[stage.node] += stage.used_bytes
    return dict(taken)


def with_kv_memory(placed: Placed) -> PlannedReplica:
    """A replica that counts with all the KV memory that it was given, which may be more than the
    plan promises."""
    return replace(
        placed.planned,
        stages=tuple(
            replace(stage, kv_bytes=max(stage.kv_bytes, budget))
            for stage, budget in zip(placed.planned.stages, placed.model.kv_budgets, strict=True)
        ),
    )


def fits(plan: Plan, rack: PlanRack) -> bool:
    """Whether the nodes that are there have the memory that a plan takes. What it keeps free is for
    a node that has a little less than before."""
    left = {node.name: node.memory_bytes for node in rack.nodes}
    for replica in plan.replicas:
        for stage in replica.stages:
            left[stage.node] = left.get(stage.node, 0) - (stage.used_bytes - stage.reserve_bytes)
    return all(size >= 0 for size in left.values())
