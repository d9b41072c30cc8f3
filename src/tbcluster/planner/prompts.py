"""How long a prompt takes through a pipeline, chunk by chunk. Pure."""

from collections.abc import Sequence

from tbcluster.core import StageRange
from tbcluster.planner.cost import Load, TimeCosts, transfer_s
from tbcluster.planner.nodes import NodeSpeed, PlanLink
from tbcluster.planner.profile import ModelProfile


def prompt_s(
    profile: ModelProfile,
    stages: Sequence[tuple[NodeSpeed, StageRange]],
    hops: Sequence[PlanLink],
    num_tokens: int,
    chunk_tokens: int,
) -> float:
    """Seconds from a prompt's first chunk to its last one's end, with nothing else to do.

    A stage takes a chunk when that has come and the one before is done: while a later stage is at
    one chunk, earlier ones are at the next. A prompt of one chunk gains nothing from more stages.

    Args:
        hops: From each stage to the next one.
        num_tokens: Of the prompt, at least 1.
    """
    free_s = [0.0] * len(stages)
    for begin in range(0, num_tokens, chunk_tokens):
        size = min(chunk_tokens, num_tokens - begin)
        is_last = begin + size >= num_tokens
        load = Load(size, float(is_last), 1, begin)
        came_s = free_s[0]
        for at, (speed, layers) in enumerate(stages):
            came_s = max(came_s, free_s[at]) + TimeCosts(profile, speed, load).of(layers)
            free_s[at] = came_s
            if at < len(hops):
                came_s += hops[at].latency_s + transfer_s(hops[at], profile, size)
    return free_s[-1]
