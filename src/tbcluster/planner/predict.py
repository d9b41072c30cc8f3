"""What a layout takes and how fast it is: the figures of a plan, whoever made it. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tbcluster.core import KV_BLOCK_TOKENS, MAX_CHUNK_TOKENS, StageRange
from tbcluster.errors import PlanError
from tbcluster.planner.cost import (
    Load,
    MemoryCosts,
    Promise,
    RangeMemory,
    TimeCosts,
    decode_load,
    prefill_load,
    reserve_bytes,
    transfer_s,
)
from tbcluster.planner.nodes import PlanLink, PlanNode, PlanRack
from tbcluster.planner.plan import PlannedReplica, PlannedStage
from tbcluster.planner.profile import ModelProfile

AT_ONCE = PlanLink(0.0, float("inf"))
# A context that no memory holds: where the search for the longest one ends.
MAX_CONTEXT_TOKENS = 1 << 30


@dataclass(frozen=True, slots=True)
class Placed:
    """A stage of a replica."""

    node: PlanNode
    layers: StageRange


# Stages of each replica, and what it promises.
Laid = Sequence[tuple[Sequence[Placed], Promise]]


@dataclass(frozen=True, slots=True)
class Trip:
    """How long a step takes on its way, in seconds.

    Attributes:
        hops: From each stage to the next one, from the last one to the coordinator; of one visit.
        total_s: With the way from the coordinator and all visits.
        slowest_s: The slowest node or link, by how long it is occupied.
    """

    stages: tuple[float, ...]
    hops: tuple[float, ...]
    total_s: float
    slowest_s: float


def predict(
    profile: ModelProfile,
    rack: PlanRack,
    promise: Promise,
    stages: Sequence[Placed],
    num_stages: Mapping[str, int] | None = None,
) -> PlannedReplica:
    """The figures of one replica.

    Args:
        num_stages: How many stages share each node, those of other replicas included; None for the
            replica's own alone.

    Raises:
        PlanError: A stage cannot reach the next one.
    """
    decode = trip(profile, rack, stages, decode_load(promise, len(stages)))
    single = trip(profile, rack, stages, decode_load(replace(promise, streams=1), len(stages)))
    prefill = trip(profile, rack, stages, prefill_load(promise))
    # A looped model has one chunk of a prompt on its way at a time.
    chunk_s = prefill.total_s if profile.num_visits > 1 else prefill.slowest_s
    period_s = max(decode.total_s, promise.num_lanes(len(stages)) * decode.slowest_s)
    memory = MemoryCosts(profile, promise)
    sharing = num_stages or Counter(stage.node.name for stage in stages)
    planned = tuple(
        _stage(stage, memory.of(stage.layers), sharing[stage.node.name], *times)
        for stage, *times in zip(stages, decode.stages, prefill.stages, decode.hops, strict=True)
    )
    return PlannedReplica(
        stages=planned,
        slowest_s=decode.slowest_s,
        step_s=single.total_s,
        longest_context=longest_context(profile, [(stages, replace(promise, streams=1))]),
        streams=promise.streams,
        tokens_per_s=_per_s(promise.streams, period_s),
        stream_tokens_per_s=_per_s(1, single.total_s),
        prefill_tokens_per_s=_per_s(MAX_CHUNK_TOKENS, chunk_s),
    )


def trip(profile: ModelProfile, rack: PlanRack, stages: Sequence[Placed], load: Load) -> Trip:
    """How long a step takes.

    Raises:
        PlanError: A stage cannot reach the next one.
    """
    speeds = {stage.node.speed: TimeCosts(profile, stage.node.speed, load) for stage in stages}
    times = [speeds[stage.node.speed].of(stage.layers) for stage in stages]
    names = [stage.node.name for stage in stages]
    links = [way(rack, *pair) for pair in pairwise(names)]
    visits = profile.num_visits
    transfers = [transfer_s(link, profile, load.rows) for link in links]
    hops = [link.latency_s + busy for link, busy in zip(links, transfers, strict=True)]
    total, busiest = visits * sum(hops), visits * max(transfers, default=0.0)
    if visits > 1:
        back = way(rack, names[-1], names[0])
        busy = transfer_s(back, profile, load.rows)
        total += (visits - 1) * (back.latency_s + busy)
        busiest = max(busiest, (visits - 1) * busy)
    head = next((node.name for node in rack.nodes if node.is_head), None)
    enter = way(rack, head, names[0]).latency_s if head is not None else 0.0
    leave = way(rack, names[-1], head).latency_s if head is not None else 0.0
    of_node: dict[str, float] = {}
    for name, seconds in zip(names, times, strict=True):
        of_node[name] = of_node.get(name, 0.0) + seconds
    return Trip(
        tuple(times),
        (*hops, leave),
        enter + sum(times) + total + leave,
        max(busiest, *of_node.values()),
    )


def way(rack: PlanRack, source: str, target: str) -> PlanLink:
    """How one node reaches another.

    Raises:
        PlanError: It does not.
    """
    if source == target:
        return AT_ONCE
    link = rack.links.get((source, target))
    if link is None:
        raise PlanError(
            f"{source} cannot reach {target}: place their stages elsewhere, or see "
            "`tbcluster links` for what is wrong between them"
        )
    return link


def longest_context(profile: ModelProfile, laid: Laid) -> int:
    """Tokens that each of the streams may have, up to what the model was made for; 0 for none."""
    most = profile.context_length or MAX_CONTEXT_TOKENS
    low, high = 0, -(-most // KV_BLOCK_TOKENS)
    while low < high:
        middle = (low + high + 1) // 2
        context = min(most, middle * KV_BLOCK_TOKENS)
        longer = [(stages, replace(promise, context=context)) for stages, promise in laid]
        if _holds(profile, longer):
            low = middle
        else:
            high = middle - 1
    return min(most, low * KV_BLOCK_TOKENS)


def memory_shortage(profile: ModelProfile, laid: Laid) -> dict[str, int]:
    """Bytes that are missing, by the names of the nodes that hold too much."""
    missing: dict[str, int] = {}
    for stages, promise in laid:
        memory = MemoryCosts(profile, promise)
        for stage in stages:
            name, has = stage.node.name, stage.node.memory_bytes
            before = missing.get(name, reserve_bytes(has) - has)
            missing[name] = before + memory.of(stage.layers).total_bytes
    return {name: size for name, size in missing.items() if size > 0}


def _holds(profile: ModelProfile, laid: Laid) -> bool:
    for stages, promise in laid:
        by_hand = promise.kv_memory_bytes
        if by_hand is not None:
            memory = MemoryCosts(profile, promise)
            if any(memory.needed_kv_bytes(stage.layers) > by_hand for stage in stages):
                return False
    return not memory_shortage(profile, laid)


def _stage(
    stage: Placed,
    memory: RangeMemory,
    num_sharing: int,
    decode_s: float,
    prefill_s: float,
    hop_s: float,
) -> PlannedStage:
    kept = reserve_bytes(stage.node.memory_bytes) // num_sharing
    return PlannedStage(
        node=stage.node.name,
        layers=stage.layers,
        weight_bytes=memory.weight_bytes,
        kv_bytes=memory.kv_bytes,
        activation_bytes=memory.activation_bytes,
        reserve_bytes=kept + memory.copy_bytes,
        memory_bytes=stage.node.memory_bytes,
        decode_s=decode_s,
        prefill_s=prefill_s,
        hop_s=hop_s,
    )


def _per_s(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else float("inf")
