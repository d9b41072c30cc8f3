"""Memory and time of ranges: tables against sums over the parts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import CacheCost, StageRange
from tbcluster.planner.cost import (
    COPY_SHARE,
    Load,
    MemoryCosts,
    Promise,
    TimeCosts,
    activation_bytes,
    attention_s,
    decode_load,
    matmul_flop_s,
    prefill_load,
    rate_at,
    sampling_s,
)
from tbcluster.planner.nodes import NodeSpeed
from tbcluster.planner.profile import AttentionCost, ModelProfile, PartProfile
from tests.planner.racks import MB, SPEED, model, models

promises = st.builds(
    Promise, st.integers(1, 5000), st.integers(1, 6), st.sampled_from([None, 7 * MB])
)


def bounds(profile: ModelProfile) -> tuple[int, ...]:
    return (0, *profile.legal_cuts, len(profile.layers))


@given(models(), promises)
def test_tables_say_what_ranges_take(profile: ModelProfile, promise: Promise) -> None:
    at = bounds(profile)
    memory, times = (
        MemoryCosts(profile, promise),
        TimeCosts(profile, SPEED, decode_load(promise, 2)),
    )
    sizes, seconds = memory.table(at), times.table(at)
    for first, start in enumerate(at):
        for last, end in enumerate(at):
            if first < last:
                layers = StageRange(start, end)
                assert sizes[first, last] == memory.of(layers).total_bytes
                # To the last bit: the search compares them.
                assert seconds[first, last] == times.of(layers)
            else:
                assert sizes[first, last] == -1
                assert seconds[first, last] == float("inf")


@given(models(), st.integers(1, 5000), st.integers(1, 6))
def test_memory_is_the_sum_of_its_parts(profile: ModelProfile, context: int, streams: int) -> None:
    memory = MemoryCosts(profile, Promise(context, streams))
    whole = memory.of(StageRange(0, len(profile.layers)))
    assert whole.weight_bytes == profile.weight_bytes
    caches = [cost for part in profile.layers for cost in part.caches]
    assert whole.kv_bytes == streams * sum(cost.held_bytes(context) for cost in caches)
    assert whole.copy_bytes == int(whole.kv_bytes * COPY_SHARE)
    assert whole.activation_bytes > activation_bytes(profile)


def test_an_embedding_is_held_once_and_read_by_the_row() -> None:
    profile = model(4)
    first = MemoryCosts(profile, Promise(256, 1)).of(StageRange(0, 2))
    middle = MemoryCosts(profile, Promise(256, 1)).of(StageRange(1, 3))
    assert first.weight_bytes - middle.weight_bytes == profile.embedding.weight_bytes
    times = TimeCosts(profile, SPEED, decode_load(Promise(256, 1), 1))
    assert times.of(StageRange(0, 2)) == pytest.approx(times.of(StageRange(1, 3)))


def test_rates_between_and_beyond_what_was_measured() -> None:
    speed = NodeSpeed(((1, 1.0), (4, 2.5), (8, 4.5)), 0, 0, 0)
    assert [rate_at(speed, rows) for rows in (0.5, 1, 2, 4, 6, 8, 16)] == [
        1.0,
        1.0,
        1.5,
        2.5,
        3.5,
        4.5,
        9.0,
    ]


def test_experts_are_read_as_they_are_used() -> None:
    """One row of 2 of 8 experts reads a quarter of them; a chunk reads all, each with a quarter of
    the rows."""
    part = PartProfile(8 * MB, 0, 8 * MB, num_experts=8, experts_per_token=2)
    none = PartProfile(0, 0)
    profile = model(1, layers=(part,), embedding=none, head=none, vocab_size=0)
    speed = NodeSpeed(((1, 1e-9), (512, 1e-9), (2048, 4e-9)), 0, 0, 0)
    whole = StageRange(0, 1)
    one = TimeCosts(profile, speed, decode_load(Promise(256, 1), 1)).of(whole)
    assert one == pytest.approx(2 * MB * 1e-9)
    chunk = TimeCosts(profile, speed, prefill_load(Promise(256, 1))).of(whole)
    assert chunk == pytest.approx(8 * MB * rate_at(speed, 512))


def test_caches_are_read_at_half_the_context_for_each_row() -> None:
    none = PartProfile(0, 0)
    layer = PartProfile(0, 0, caches=(CacheCost(0, 1000), CacheCost(500, 10, window=100)))
    profile = model(1, layers=(layer,), embedding=none, head=none, vocab_size=0)
    speed = NodeSpeed(((1, 1e-9),), 0, 0, 1e-9)
    load = decode_load(Promise(4000, 6), 2)
    assert load.rows == 3
    expected = 3 * (2000 * 1000 + 500 + 10 * 100) * 1e-9
    assert TimeCosts(profile, speed, load).of(StageRange(0, 1)) == pytest.approx(expected)


def test_attention_takes_what_its_multiplications_take_where_that_is_more() -> None:
    """Latent attention in a decode step: few bytes, much to compute."""
    costs = AttentionCost(prompt_flops=100, decode_flops=1000, unpack_flops=300)
    layer = PartProfile(0, 0, caches=(CacheCost(0, 2),), attention=costs)
    speed = NodeSpeed(((1, 1e-9), (2000, 4e-9)), 0, 0, 1e-12)
    flop_s = 4e-9 * 2 / 4000  # 16-bit weights: 1 of each 2 bytes, 2 of each row and weight
    assert matmul_flop_s(speed, "float16") == pytest.approx(flop_s)
    decode = Load(rows=3, head_rows=3, streams=3, context=500)
    assert attention_s(layer, speed, flop_s, decode) == pytest.approx(3 * 500 * 1000 * flop_s)
    chunk = Load(rows=200, head_rows=1, streams=1, context=500)
    expected = 600 * (200 * 100 + 300) * flop_s
    assert attention_s(layer, speed, flop_s, chunk) == pytest.approx(expected)
    slow_memory = replace(speed, cache_s_per_byte=1.0)
    assert attention_s(layer, slow_memory, flop_s, decode) == pytest.approx(3 * 500 * 2)


def test_a_window_bounds_what_attention_looks_at() -> None:
    costs = AttentionCost(100, 100, 0)
    near = PartProfile(0, 0, caches=(CacheCost(0, 2, window=64),), attention=costs)
    state = PartProfile(0, 0, caches=(CacheCost(1000, 0),), attention=costs)
    far = Load(1, 1, 1, 100_000)
    slow = replace(SPEED, cache_s_per_byte=0.0, vector_flop_s=1e-6)
    assert attention_s(near, slow, 0.0, far) == pytest.approx(64 * 100 * 1e-6)
    assert attention_s(state, SPEED, 1e-6, far) == pytest.approx(1000 * SPEED.cache_s_per_byte)


def test_each_row_of_logits_is_sampled() -> None:
    two, six = (sampling_s(model(1), SPEED, rows) for rows in (2, 6))
    assert six == pytest.approx(3 * two)
    assert two > 0


def test_a_looped_model_is_visited_again() -> None:
    load = decode_load(Promise(256, 1), 1)
    once, twice = (
        TimeCosts(model(4, num_visits=visits), SPEED, load).of(StageRange(1, 3))
        for visits in (1, 2)
    )
    assert twice == 2 * once
