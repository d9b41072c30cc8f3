"""What is missing where a model does not fit, and what would: by planning it. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from tbcluster.core import KV_BITS, KV_BLOCK_TOKENS, CacheCost, StageRange
from tbcluster.errors import DoesNotFitError, PlanError
from tbcluster.planner.cost import MemoryCosts, Promise, reserve_bytes
from tbcluster.planner.layout import Layouts
from tbcluster.planner.nodes import PlanLink, PlanNode, PlanRack
from tbcluster.planner.plan import Wishes
from tbcluster.planner.profile import ModelProfile, PartProfile
from tbcluster.planner.weight_kinds import bits_per_weight
from tbcluster.planner.words import amount, and_list, count, rounded, unit_of

MIB = 1 << 20
# Of weights that somebody may have converted, in groups of 64.
WEIGHT_BITS = (8, 6, 4, 3)
# What scales and biases of quantized KV caches take beside them.
KV_GROUP_BITS = 0.5
# More nodes than this are not advised.
MAX_MORE_NODES = 8
# The way to a node that is not there: Ethernet.
ASSUMED_LINK = PlanLink(300e-6, 1.1e9)


def does_not_fit(
    profile: ModelProfile, rack: PlanRack, wishes: Wishes, promise: Promise
) -> PlanError:
    """The error to raise: how much is missing, and what would fit. If more memory would not help,
    nodes do not reach each other."""
    missing = _missing_bytes(profile, rack, wishes, promise)
    if missing is None:
        return PlanError(
            f"{profile.name} cannot be placed as asked, whatever the memory: "
            f"{_unreachable(rack)}see `tbcluster links`, or ask for fewer stages or replicas"
        )
    return DoesNotFitError(
        _shortage(profile, rack, wishes, promise, missing),
        missing,
        tuple(_remedies(profile, rack, wishes, promise)),
    )


def _shortage(
    profile: ModelProfile, rack: PlanRack, wishes: Wishes, promise: Promise, missing: int
) -> str:
    """What is needed, what is there and what is missing, in figures that a person can check."""
    room = sum(node.memory_bytes for node in rack.nodes)
    # In one unit, and rounded before they are added up: they are right as they are shown.
    unit = unit_of(min(room, missing))
    has, lacks = rounded(room, unit), rounded(missing, unit)
    replicas = wishes.replicas or 1
    one = MemoryCosts(profile, promise).of(StageRange(0, len(profile.layers))).total_bytes
    least = replicas * one + sum(reserve_bytes(node.memory_bytes) for node in rack.nodes)
    names = and_list([node.name or "this machine" for node in rack.nodes])
    have = "has" if len(rack.nodes) == 1 else "have"
    together = "" if len(rack.nodes) == 1 else " together"
    copies = f" in {count(replicas, 'replica')}" if replicas > 1 else ""
    promised = f"with {count(promise.streams, 'stream')} of {promise.context:,} tokens{copies}"
    begin = f"{profile.name} does not fit: {promised} it needs"
    if least <= room:
        return (
            f"{begin} {amount(least)} or more, and of the {amount(room)} for models that {names} "
            f"{have}{together} too little is where it is needed; {amount(missing)} more would do"
        )
    weights = amount(replicas * profile.weight_bytes, unit)
    return (
        f"{begin} {amount(has + lacks, unit)} ({weights} of weights, the rest KV caches, "
        f"activations and reserve); {names} {have} {amount(has, unit)} for models{together}, "
        f"{amount(lacks, unit)} too little"
    )


def _missing_bytes(
    profile: ModelProfile, rack: PlanRack, wishes: Wishes, promise: Promise
) -> int | None:
    """The least memory that would have to be added, to all nodes evenly or to the largest one; to
    1/256. None if none would do."""
    whole = MemoryCosts(profile, promise).of(StageRange(0, len(profile.layers))).total_bytes
    most = 2 * whole * (wishes.replicas or 1) + MIB
    largest = max(rack.nodes, key=lambda node: node.memory_bytes)

    def evenly(more: int) -> PlanRack:
        return _larger(rack, {node.name: more // len(rack.nodes) for node in rack.nodes})

    def at_one(more: int) -> PlanRack:
        return _larger(rack, {largest.name: more})

    found = []
    for larger, limit in ((evenly, most * len(rack.nodes)), (at_one, most)):

        def fits(more: int, larger: Callable[[int], PlanRack] = larger) -> bool:
            return Layouts(profile, larger(more), wishes).fits(promise)

        if fits(limit):
            found.append(_least(fits, limit))
    return min(found, default=None)


def _least(fits: Callable[[int], bool], limit: int) -> int:
    low, high = 0, limit
    while high - low > max(1, high >> 8):
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return high


def _larger(rack: PlanRack, more: dict[str, int]) -> PlanRack:
    nodes = tuple(
        replace(node, memory_bytes=node.memory_bytes + more.get(node.name, 0))
        for node in rack.nodes
    )
    return replace(rack, nodes=nodes)


def _remedies(
    profile: ModelProfile, rack: PlanRack, wishes: Wishes, promise: Promise
) -> Iterator[str]:
    def fits(
        model: ModelProfile = profile,
        on: PlanRack = rack,
        other: Promise = promise,
        wished: Wishes = wishes,
    ) -> bool:
        return Layouts(model, on, wished).fits(other)

    if wishes.stages is not None and fits(wished=replace(wishes, stages=None)):
        yield "another number of stages would fit: leave --stages out"
    if (wishes.replicas or 1) > 1 and fits(wished=replace(wishes, replicas=1)):
        yield "one replica would fit"
    yield from _smaller_promises(promise, lambda other: fits(other=other))
    yield from _fewer_bits(profile, wishes, lambda model: fits(model=model))
    yield from _more_nodes(rack, lambda larger: fits(on=larger))


def _smaller_promises(promise: Promise, fits: Callable[[Promise], bool]) -> Iterator[str]:
    blocks = [
        at
        for at in _powers(promise.context // KV_BLOCK_TOKENS)
        if at * KV_BLOCK_TOKENS < promise.context
    ]
    shorter = next(
        (at for at in blocks if fits(replace(promise, context=at * KV_BLOCK_TOKENS))), None
    )
    if shorter is not None:
        longest = _most(
            lambda at: fits(replace(promise, context=at * KV_BLOCK_TOKENS)),
            shorter,
            promise.context // KV_BLOCK_TOKENS,
        )
        yield f"a context of {longest * KV_BLOCK_TOKENS:,} tokens would fit (--context)"
    if promise.streams > 1 and fits(replace(promise, streams=1)):
        streams = _most(lambda n: fits(replace(promise, streams=n)), 1, promise.streams - 1)
        yield f"{count(streams, 'stream')} of {promise.context:,} tokens would fit (--streams)"


def _powers(most: int) -> Iterator[int]:
    """Halves of a number, down to 1."""
    while most >= 1:
        yield most
        most //= 2


def _most(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The most that fits; `low` does."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _fewer_bits(
    profile: ModelProfile, wishes: Wishes, fits: Callable[[ModelProfile], bool]
) -> Iterator[str]:
    now = bits_per_weight(profile.weight_kind)
    for bits in WEIGHT_BITS:
        share = bits_per_weight(f"{bits}-bit/64") / now
        if share < 1:
            smaller = _scaled(profile, weights=share)
            if fits(smaller):
                yield (
                    f"the same model with weights of {bits} bits would fit (about "
                    f"{amount(smaller.weight_bytes)} instead of {amount(profile.weight_bytes)})"
                )
                break
    kv_now = _plain_kv_bits(profile) if wishes.kv_bits is None else wishes.kv_bits + KV_GROUP_BITS
    for bits in KV_BITS:
        share = (bits + KV_GROUP_BITS) / kv_now
        if share < 1 and fits(_scaled(profile, caches=share)):
            yield f"KV caches of {bits} bits would fit (--kv-bits {bits})"
            break


def _plain_kv_bits(profile: ModelProfile) -> float:
    return 32.0 if profile.weight_kind == "float32" else 16.0


def _scaled(profile: ModelProfile, weights: float = 1.0, caches: float = 1.0) -> ModelProfile:
    def scaled(part: PartProfile) -> PartProfile:
        return replace(
            part,
            weight_bytes=int(part.weight_bytes * weights),
            expert_bytes=int(part.expert_bytes * weights),
            lookup_bytes=int(part.lookup_bytes * weights),
            caches=tuple(
                CacheCost(cost.fixed_bytes, int(cost.bytes_per_token * caches), cost.window)
                for cost in part.caches
            ),
        )

    return replace(
        profile,
        layers=tuple(scaled(part) for part in profile.layers),
        embedding=scaled(profile.embedding),
        head=scaled(profile.head),
        shared=scaled(profile.shared),
        tied_bytes=int(profile.tied_bytes * weights),
    )


def _more_nodes(rack: PlanRack, fits: Callable[[PlanRack], bool]) -> Iterator[str]:
    by_size = sorted(rack.offline, key=lambda node: -node.memory_bytes)
    for at in range(1, len(by_size) + 1):
        if fits(_joined(rack, by_size[:at])):
            names = and_list([node.name for node in by_size[:at]])
            yield f"it would fit with {names}, {'which is' if at == 1 else 'which are'} offline now"
            break
    largest = max(rack.nodes, key=lambda node: node.memory_bytes)
    what = f"like {largest.name}" if largest.name else "like this machine"
    room = amount(largest.memory_bytes)
    for number in range(1, MAX_MORE_NODES + 1):
        more = [
            replace(largest, name=f"{largest.name}+{at}", is_head=False) for at in range(number)
        ]
        if fits(_joined(rack, more)):
            yield f"{count(number, 'more node')} {what} ({room} for models) would do"
            return
    yield (
        f"larger nodes, or a smaller model: not even {MAX_MORE_NODES} more {what} ({room} for "
        "models) are enough"
    )


def _joined(rack: PlanRack, more: list[PlanNode]) -> PlanRack:
    links = dict(rack.links)
    nodes = [*rack.nodes, *more]
    for one in nodes:
        for other in more:
            if one.name != other.name:
                links[one.name, other.name] = ASSUMED_LINK
                links[other.name, one.name] = ASSUMED_LINK
    return replace(rack, nodes=tuple(nodes), links=links)


def _unreachable(rack: PlanRack) -> str:
    """Pairs that cannot reach each other, a few of them."""
    names = [node.name for node in rack.nodes]
    pairs = [
        f"{one} and {other}"
        for at, one in enumerate(names)
        for other in names[at + 1 :]
        if (one, other) not in rack.links or (other, one) not in rack.links
    ]
    return f"{and_list(pairs[:3])} cannot reach each other; " if pairs else ""
