"""What a chunk costs: the chain of lines through what was seen."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.engine.chunk_cost import LEAST_SLOPE, MAX_SURPRISE, MEMORY_CHUNKS, ChunkCost
from tbcluster.engine.pace import Pace

seen = st.lists(st.tuples(st.integers(1, 4096), st.floats(0, 1e9)), min_size=1, max_size=40)


def learned(*chunks: tuple[int, float], few_rows: tuple[int, float] | None = None) -> ChunkCost:
    cost = ChunkCost()
    if few_rows is not None:
        cost.add_decode(*few_rows)
    for chunk in chunks:
        cost.add_chunk(*chunk)
    return cost


def experts_us(num_tokens: int) -> float:
    """A stage of a mixture: 128 experts of 1 ms, of which a token uses 8; 20 us of other work."""
    return 1000 + 128_000 * (1 - (1 - 8 / 128) ** num_tokens) + 20 * num_tokens


def test_between_two_sizes_it_is_linear_and_beyond_them_it_goes_on() -> None:
    cost = learned((16, 100.0), (64, 200.0), (256, 1000.0), few_rows=(1, 40.0))
    assert cost.of(1) == pytest.approx(40)
    assert cost.of(16) == pytest.approx(100)
    assert cost.of(40) == pytest.approx(150)
    assert cost.of(160) == pytest.approx(600)
    assert cost.of(512) == pytest.approx(1000 + 256 * 800 / 192)


def test_two_large_sizes_that_seem_alike_do_not_make_tokens_free() -> None:
    cost = learned((16, 100.0), (256, 1000.0), (512, 1000.0))
    assert cost.of(1024) == pytest.approx(1000 + 512 * LEAST_SLOPE * 1000 / 512)


def test_nor_do_two_alone_whose_times_are_noise() -> None:
    cost = learned((32, 45_000.0), (70, 44_000.0), few_rows=(1, 50_000.0))
    assert cost.worthwhile(2.0) < 10_000


def test_more_tokens_take_no_less_time_whatever_was_seen() -> None:
    cost = learned((16, 100.0), (256, 80.0))
    assert cost.of(16) <= cost.of(256) == pytest.approx(100)


def test_a_disturbed_step_counts_no_more_than_so_many_times_what_was_expected() -> None:
    cost = learned((64, 1000.0), (64, 1e9))
    assert cost.of(64) <= 1000 * (1 + MAX_SURPRISE)


def test_sizes_that_do_not_come_any_more_are_forgotten() -> None:
    cost = learned((512, 5000.0), *[(16, 100.0)] * MEMORY_CHUNKS)
    assert cost.of(512) != pytest.approx(5000)


@given(seen, st.none() | st.tuples(st.integers(1, 64), st.floats(0, 1e9)))
def test_costs_ascend_and_what_is_affordable_costs_no_more(
    chunks: list[tuple[int, float]], few_rows: tuple[int, float] | None
) -> None:
    cost = learned(*chunks, few_rows=few_rows)
    sizes = [1, 2, 7, 31, 100, 512, 2048, 9000]
    costs = [cost.of(size) for size in sizes]
    # Where it is flat, a line rises by next to nothing.
    assert all(a <= b * (1 + 1e-9) + 10 for a, b in pairwise(costs))
    for us in (costs[0], costs[3], costs[-1], costs[4] * 1.5):
        most = cost.affordable(us)
        assert most <= 0 or cost.of(most) <= us * (1 + 1e-6) + 10
    ends = [(line.begin, line.end) for line in cost.lines]
    assert ends[0][0] == 0
    assert ends[-1][1] == float("inf")
    assert all(a[1] == b[0] for a, b in pairwise(ends))


def test_chunks_of_a_mixture_of_experts_stay_large_beside_streams() -> None:
    """A straight line through a decode step and the latest chunk would take a few tokens for worth
    their trip, and would never see again how little more many cost."""
    pace, num_lanes = Pace(2), 2
    pace.observe_chunk(256, experts_us(256))
    tokens = chunks = 0
    for _ in range(400):
        pace.observe_decode(2, experts_us(2))
        pace.decode_scheduled(num_lanes)
        size = pace.paced_chunk(10**6, num_lanes, 2)
        if size:
            pace.chunk_scheduled(size)
            pace.observe_chunk(size, experts_us(size))
            tokens, chunks = tokens + size, chunks + 1
    assert chunks > 5
    assert tokens / chunks > 200
    spent = chunks * experts_us(tokens // chunks)
    assert spent <= 1.5 * 400 * experts_us(2)
