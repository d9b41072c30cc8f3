"""A stage's times are the planner's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import StageRange
from tbcluster.planner.cost import Load, TimeCosts
from tbcluster.planner.profile import ModelProfile
from tbcluster.simulator.stage_times import CONTEXT_STEP, StageTimes
from tests.planner.racks import SPEED, model, models


@given(models(), st.integers(1, 300), st.integers(0, 200), st.data())
def test_they_are_those_of_the_cost_model(
    profile: ModelProfile, rows: int, blocks: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(profile.layers) - 1))
    layers = StageRange(start, data.draw(st.integers(start + 1, len(profile.layers))))
    times = StageTimes(profile, SPEED, layers)
    context = blocks * CONTEXT_STEP
    decode = TimeCosts(profile, SPEED, Load(rows, rows, rows, context)).of(layers)
    assert profile.num_visits * times.decode_s(rows, context) == pytest.approx(decode)
    chunk = TimeCosts(profile, SPEED, Load(rows + 1, 0, 1, context))
    # Between a prompt's chunks nothing is sampled.
    head_s = chunk.head_s if layers.end == len(profile.layers) else 0.0
    expected = chunk.of(layers) / profile.num_visits - head_s
    assert times.chunk_s(rows + 1, context) == pytest.approx(expected)


def test_contexts_within_a_step_cost_the_same() -> None:
    times = StageTimes(model(3), SPEED, StageRange(0, 3))
    assert times.decode_s(1, 0) == times.decode_s(1, CONTEXT_STEP - 1)
    assert times.decode_s(1, 0) < times.decode_s(1, 100 * CONTEXT_STEP)
