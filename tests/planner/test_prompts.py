"""Prompts through a pipeline, and what tensor parallelism would do."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import StageRange
from tbcluster.planner.cost import Load, TimeCosts
from tbcluster.planner.nodes import PlanLink
from tbcluster.planner.prompts import prompt_s
from tbcluster.planner.tensor_parallel import (
    COLLECTIVES_PER_LAYER,
    TensorParallel,
    tensor_parallel_groups,
)
from tests.planner.racks import SPEED, model, node, rack

NEXT = PlanLink(0.001, 1e9)
HALVES = [(SPEED, StageRange(0, 4)), (SPEED, StageRange(4, 8))]


def chunk_s(layers: StageRange, size: int, before: int, *, is_last: bool) -> float:
    return TimeCosts(model(8), SPEED, Load(size, float(is_last), 1, before)).of(layers)


def test_one_chunk_takes_as_long_as_all_stages_together() -> None:
    seconds = prompt_s(model(8), HALVES, [NEXT], 100, 2048)
    stages = [chunk_s(layers, 100, 0, is_last=True) for _, layers in HALVES]
    assert seconds == pytest.approx(sum(stages) + 0.001 + 100 * 1000 / 1e9)


def test_chunks_overlap_in_later_stages() -> None:
    """The second stage computes a chunk while the first one computes the next."""
    alone = prompt_s(model(8), [(SPEED, StageRange(0, 8))], [], 16 * 512, 512)
    both = prompt_s(model(8), HALVES, [PlanLink(0, 1e12)], 16 * 512, 512)
    # Sixteen chunks and one more to fill the pipeline, of which each takes half.
    assert both / alone == pytest.approx(17 / 32, rel=0.02)


@given(st.integers(1, 3000), st.integers(1, 700))
def test_no_pipeline_is_faster_than_its_slowest_stage_or_slower_than_its_sum(
    num_tokens: int, chunk: int
) -> None:
    seconds = prompt_s(model(8), HALVES, [NEXT], num_tokens, chunk)
    begins = range(0, num_tokens, chunk)
    each = [
        [
            chunk_s(layers, min(chunk, num_tokens - at), at, is_last=at == begins[-1])
            for at in begins
        ]
        for _, layers in HALVES
    ]
    hops = len(begins) * (0.001 + chunk * 1000 / 1e9)
    assert max(map(sum, each)) - 1e-9 <= seconds <= sum(map(sum, each)) + hops + 1e-9


def test_tensor_parallel_halves_what_is_not_small_and_adds_collectives() -> None:
    profile = model(8)
    speed = replace(SPEED, layer_s=0.0, stage_s=0.0)
    whole = TimeCosts(profile, speed, Load(1, 1, 1, 100)).of(StageRange(0, 8))
    group = TensorParallel(profile, speed, 2, PlanLink(0.001, 1e12))
    assert 1 / group.tokens_per_s(100) == pytest.approx(
        whole / 2 + COLLECTIVES_PER_LAYER * 8 * 0.001, rel=1e-6
    )


def test_only_equal_nodes_with_enough_memory_share_layers() -> None:
    profile = model(8)
    assert tensor_parallel_groups(profile, rack(node("a", 900))) == {}
    assert tensor_parallel_groups(profile, rack(node("a", 900), node("b", 900, 2.0))) == {}
    assert tensor_parallel_groups(profile, rack(node("a", 9), node("b", 9))) == {}
    groups = tensor_parallel_groups(profile, rack(node("a", 900), node("b", 900)))
    assert groups["fast"].tokens_per_s(100) > groups["slow"].tokens_per_s(100)
    assert groups["fast"].prompt_tokens_per_s(100) > groups["slow"].prompt_tokens_per_s(100)
