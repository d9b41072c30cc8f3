"""What the cost model says of a published measurement."""

from itertools import pairwise

from benchmarks.calibration.rows import Measured
from tbcluster.cluster.chip_speeds import Coefficients, catalogue_speed
from tbcluster.core import MAX_CHUNK_TOKENS, StageRange
from tbcluster.planner.cost import Load, TimeCosts
from tbcluster.planner.nodes import NodeSpeed, PlanLink
from tbcluster.planner.prompts import prompt_s
from tbcluster.planner.tensor_parallel import TensorParallel

# RDMA over Thunderbolt carries hidden states in next to no time beside software.
WIRE = PlanLink(0.0, 6e9)
TENSOR, PIPELINE = "tensor", "pipeline"


def predicted(row: Measured, by: Coefficients, collective_s: float, what: str) -> float:
    """Tokens a second, "decode" or "prefill".

    Args:
        collective_s: Of an all-reduce of a few kilobytes, where the row's model is tensor-parallel.
    """
    speed = _one_process(catalogue_speed(row.chip, row.kind, by))
    hop_s = by.stage_s
    if row.parallelism == TENSOR:
        group = TensorParallel(row.profile, speed, row.nodes, PlanLink(collective_s, 6e9))
        return (
            group.tokens_per_s(row.prompt_tokens)
            if what == "decode"
            else group.prompt_tokens_per_s(row.prompt_tokens)
        )
    profile, stages = row.profile, _stages(row)
    if what == "decode":
        costs = TimeCosts(profile, speed, Load(1, 1, 1, row.decode_context))
        seconds = sum(costs.of(layers) for layers in stages)
        return 1 / (seconds + (len(stages) - 1) * hop_s)
    placed = [(speed, layers) for layers in stages]
    seconds = prompt_s(profile, placed, [WIRE] * (len(stages) - 1), row.prompt_tokens, CHUNK_TOKENS)
    return row.prompt_tokens / seconds


# mlx-lm's own, unless it is told otherwise.
CHUNK_TOKENS = MAX_CHUNK_TOKENS


def _one_process(speed: NodeSpeed) -> NodeSpeed:
    """Without the software of a stage: mlx-lm has none on one machine."""
    return NodeSpeed(
        speed.rates,
        speed.layer_s,
        0.0,
        speed.cache_s_per_byte,
        speed.source,
        speed.vector_flop_s,
    )


def _stages(row: Measured) -> list[StageRange]:
    number = row.nodes if row.parallelism == PIPELINE else 1
    layers = len(row.profile.layers)
    bounds = [layers * at // number for at in range(number + 1)]
    return [StageRange(*pair) for pair in pairwise(bounds)]
