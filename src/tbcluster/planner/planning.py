"""Which node runs which layers of a model, and why. Pure.

Of all ways to place the stages the one whose slowest stage or link is least busy in a decode step,
then the one with the shortest trip. How many nodes and how many copies: the tokens a second of the
promised streams decide, where they differ enough (see `replicas`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tbcluster.core import KV_BLOCK_TOKENS, StageRange
from tbcluster.errors import DoesNotFitError, PlanError
from tbcluster.planner.cost import Promise
from tbcluster.planner.layout import Layout, Layouts
from tbcluster.planner.nodes import PlanRack
from tbcluster.planner.partition import check_ranges, even_split
from tbcluster.planner.plan import (
    DEFAULT_CONTEXT,
    LeftOut,
    Plan,
    PlannedReplica,
    Wishes,
)
from tbcluster.planner.predict import (
    MAX_CONTEXT_TOKENS,
    Laid,
    Placed,
    longest_context,
    memory_shortage,
    predict,
)
from tbcluster.planner.profile import ModelProfile
from tbcluster.planner.reasons import left_out, reasons
from tbcluster.planner.remedies import does_not_fit
from tbcluster.planner.words import amount, and_list, count

# Less is promised to nobody: the caches take as much for fewer tokens.
MIN_CONTEXT = KV_BLOCK_TOKENS
# More is a slip, and sums of bytes have to stay below 2^63.
MAX_STREAMS = 1 << 12
MAX_KV_BYTES = 1 << 50


def make_plan(profile: ModelProfile, rack: PlanRack, wishes: Wishes) -> Plan:
    """The best plan.

    Raises:
        PlanError: The wishes cannot be met, whatever the memory.
        DoesNotFitError: There is too little memory; it says what would fit.
    """
    _check(profile, rack, wishes)
    if wishes.stages is not None and wishes.replicas is None:
        # So many stages are asked for, not so many for each of some copies.
        wishes = replace(wishes, replicas=1)
    layouts = Layouts(profile, rack, wishes)
    promise = Promise(
        wishes.context or _default_context(profile), wishes.streams, wishes.kv_memory_bytes
    )
    layout = layouts.best(promise)
    notes: tuple[str, ...] = ()
    if layout is None and wishes.context is None:
        layout, less, notes = _most_that_fits(layouts, promise)
        promise = less if layout is not None else promise
    if layout is None:
        raise does_not_fit(profile, rack, wishes, promise)
    plan = Plan(
        model=profile.name,
        replicas=_predicted(profile, layouts, layout, rack),
        left_out=left_out(profile, rack, layouts, layout),
        context=promise.context,
        streams=sum(own.streams for _, own in layout.replicas),
        reasons=(*notes, *reasons(profile, rack, layouts, layout)),
    )
    return _with_kv_by_hand(profile, plan, wishes, layout.replicas)


def plan_by_hand(
    profile: ModelProfile,
    rack: PlanRack,
    wishes: Wishes,
    replicas: Sequence[Sequence[tuple[str, StageRange]]],
) -> Plan:
    """A plan whose layers and nodes a person gave: (node, layers) of each stage of each replica.

    Where no context is wished for, it is the default one, or as much as fits.

    Raises:
        PlanError: It does not hold each layer once, cuts where the model may not be cut, or names a
            node that is not there or cannot be reached.
        DoesNotFitError: A node has too little memory.
    """
    try:
        return _plan_by_hand(profile, rack, wishes, replicas)
    except DoesNotFitError as error:
        raise DoesNotFitError(
            f"{_given(wishes)} does not fit: {error.message}", error.missing_bytes, error.remedies
        ) from error
    except PlanError as error:
        if not wishes.plan_file:
            raise
        raise PlanError(f"{_given(wishes)} cannot be used: {error}") from error


def _given(wishes: Wishes) -> str:
    return f"the plan {wishes.plan_file}" if wishes.plan_file else "the plan given by hand"


def _plan_by_hand(
    profile: ModelProfile,
    rack: PlanRack,
    wishes: Wishes,
    replicas: Sequence[Sequence[tuple[str, StageRange]]],
) -> Plan:
    if not replicas:
        raise PlanError("a plan without replicas: give at least one")
    _check_promise(profile, wishes)
    # Replicas on one node compute at the same time.
    num_sharing = Counter(name for given in replicas for name in {name for name, _ in given})
    nodes = {
        node.name: replace(node, speed=node.speed.shared_by(max(1, num_sharing[node.name])))
        for node in rack.nodes
    }
    placed = []
    for given in replicas:
        check_ranges([layers for _, layers in given], len(profile.layers), profile.legal_cuts)
        for name, _ in given:
            if name not in nodes:
                known = and_list([node.name for node in rack.nodes]) or "none"
                raise PlanError(f"there is no node {name!r}; nodes that can be used: {known}")
        placed.append(tuple(Placed(nodes[name], layers) for name, layers in given))
    promise = Promise(
        wishes.context or _default_context(profile), wishes.streams, wishes.kv_memory_bytes
    )
    laid = _promised_by_hand(profile, placed, promise, is_asked=wishes.context is not None)
    num_stages = Counter(stage.node.name for stages in placed for stage in stages)
    plan = Plan(
        model=profile.name,
        replicas=tuple(predict(profile, rack, own, stages, num_stages) for stages, own in laid),
        left_out=tuple(
            LeftOut(node.name, "the plan given by hand does not use it")
            for node in rack.nodes
            if node.name not in num_stages
        ),
        context=laid[0][1].context,
        streams=sum(own.streams for _, own in laid),
        reasons=("layers and nodes were given by hand; the figures are predicted",),
        is_by_hand=True,
    )
    return _with_kv_by_hand(profile, plan, wishes, laid)


def _check(profile: ModelProfile, rack: PlanRack, wishes: Wishes) -> None:
    if not rack.nodes:
        raise PlanError(
            "there is no node to plan for: start `tbcluster agent` on one, or take a drained one "
            "back with `tbcluster undrain NODE`"
        )
    _check_promise(profile, wishes)
    if wishes.stages is not None:
        # Raises for too few and too many.
        even_split(len(profile.layers), profile.legal_cuts, wishes.stages)


def _check_promise(profile: ModelProfile, wishes: Wishes) -> None:
    for value, most, what in (
        (wishes.context, MAX_CONTEXT_TOKENS, "tokens of context"),
        (wishes.streams, MAX_STREAMS, "streams"),
        (wishes.replicas, MAX_STREAMS, "replicas"),
        (wishes.kv_memory_bytes, MAX_KV_BYTES, "bytes of KV memory"),
    ):
        if value is not None and not 1 <= value <= most:
            raise PlanError(f"{value:,} {what}: ask for 1 to {most:,}")
    if wishes.context and profile.context_length and wishes.context > profile.context_length:
        raise PlanError(
            f"a context of {wishes.context:,} tokens: {profile.name} was made for "
            f"{profile.context_length:,} at most"
        )


def _default_context(profile: ModelProfile) -> int:
    return min(profile.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)


def _most_that_fits(
    layouts: Layouts, promise: Promise
) -> tuple[Layout | None, Promise, tuple[str, ...]]:
    """The longest context in blocks of 256 tokens, then the most streams of the shortest one."""
    shortest = replace(promise, context=min(MIN_CONTEXT, promise.context))
    if layouts.fits(shortest):
        low, high = 1, promise.context // MIN_CONTEXT
        while low < high:
            middle = (low + high + 1) // 2
            if layouts.fits(replace(promise, context=middle * MIN_CONTEXT)):
                low = middle
            else:
                high = middle - 1
        less = replace(promise, context=min(promise.context, low * MIN_CONTEXT))
    else:
        less = replace(shortest, streams=1)
        for streams in range(promise.streams - 1, 0, -1):
            if layouts.fits(replace(shortest, streams=streams)):
                less = replace(shortest, streams=streams)
                break
    note = (
        f"{count(less.streams, 'stream')} of {less.context:,} tokens: more does not fit beside the "
        f"weights ({promise.streams:,} of {promise.context:,} is the default)"
    )
    return layouts.best(less), less, (note,)


def _predicted(
    profile: ModelProfile, layouts: Layouts, layout: Layout, rack: PlanRack
) -> tuple[PlannedReplica, ...]:
    memory = {node.name: node.memory_bytes for node in rack.nodes}
    replicas = [predict(profile, layouts.rack, own, stages) for stages, own in layout.replicas]
    return tuple(
        replace(
            replica,
            stages=tuple(
                replace(stage, memory_bytes=memory[stage.node]) for stage in replica.stages
            ),
        )
        for replica in replicas
    )


def _with_kv_by_hand(profile: ModelProfile, plan: Plan, wishes: Wishes, laid: Laid) -> Plan:
    """KV memory that was given by hand is what it is: the promise follows from it."""
    if wishes.kv_memory_bytes is None:
        return plan
    held = longest_context(profile, laid)
    if held >= plan.context:
        return plan
    given = amount(wishes.kv_memory_bytes)
    if wishes.context is not None:
        raise DoesNotFitError(
            f"{given} of KV memory on each stage hold {count(wishes.streams, 'stream')} of "
            f"{held:,} tokens, not of {wishes.context:,}",
            0,
            ("leave --kv-memory out, and as much is taken as the promise needs",),
        )
    note = f"{given} of KV memory on each stage, as asked, hold {held:,} tokens of each stream"
    return replace(plan, context=held, reasons=(note, *plan.reasons))


def _promised_by_hand(
    profile: ModelProfile, placed: Sequence[Sequence[Placed]], promise: Promise, *, is_asked: bool
) -> Laid:
    """The streams shared out evenly; a context that nobody asked for is as long as fits."""
    even, more = divmod(promise.streams, len(placed))
    laid: Laid = [
        (stages, replace(promise, streams=max(1, even + (at < more))))
        for at, stages in enumerate(placed)
    ]
    if not is_asked:
        context = max(1, min(promise.context, longest_context(profile, laid)))
        laid = [(stages, replace(own, context=context)) for stages, own in laid]
    missing = memory_shortage(profile, laid)
    if missing:
        nodes = and_list(
            [f"{name or 'this machine'} lacks {amount(size)}" for name, size in missing.items()]
        )
        raise DoesNotFitError(
            f"{nodes} for {laid[0][1].context:,} tokens of context",
            sum(missing.values()),
            ("give those nodes fewer layers, or leave the plan out and let tbcluster make one",),
        )
    return laid
