"""Sizes of prompt chunks: the line through what was measured, and the bounds that always hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import MAX_CHUNK_TOKENS
from tbcluster.engine.pace import (
    FIRST_CHUNK_TOKENS,
    MIN_CHUNK_TOKENS,
    PREFILL_SHARE,
    Pace,
)

# (fixed, per token) microseconds of a stage.
LINES = [(20_000.0, 200.0), (2_000.0, 850.0), (100_000.0, 30.0), (500.0, 5.0)]
NUM_ROWS = 4


def cost_us(line: tuple[float, float], num_tokens: int) -> float:
    fixed_us, token_us = line
    return fixed_us + num_tokens * token_us


def observe(pace: Pace, line: tuple[float, float], chunk_tokens: int, times: int = 1) -> None:
    for _ in range(times):
        pace.observe_decode(NUM_ROWS, cost_us(line, NUM_ROWS))
        pace.observe_chunk(chunk_tokens, cost_us(line, chunk_tokens))


def measured(line: tuple[float, float], num_stages: int) -> Pace:
    pace = Pace(num_stages)
    observe(pace, line, 300)
    return pace


# The pipeline to itself


@pytest.mark.parametrize("num_stages", [2, 3, 4, 8])
@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("num_waiting", [40, 1500, 20_000])
def test_chunks_take_a_prompt_through_as_fast_as_any_size_would(
    num_stages: int, line: tuple[float, float], num_waiting: int
) -> None:
    def time_us(chunk: int) -> float:
        return (num_waiting / chunk + num_stages - 1) * cost_us(line, chunk)

    size = measured(line, num_stages).filling_chunk(num_waiting)
    best = min(range(MIN_CHUNK_TOKENS, MAX_CHUNK_TOKENS + 1), key=time_us)
    assert abs(size - best) <= 1


def test_one_stage_has_nothing_to_fill() -> None:
    pace = Pace(1)
    assert pace.filling_chunk(100_000) == MAX_CHUNK_TOKENS
    observe(pace, LINES[0], 2048)
    assert pace.filling_chunk(100_000) == MAX_CHUNK_TOKENS


def test_before_anything_was_measured() -> None:
    pace = Pace(4)
    assert pace.filling_chunk(100_000) == FIRST_CHUNK_TOKENS
    assert Pace(4, 100).filling_chunk(100_000) == 100
    # A decode step alone does not tell how chunks do.
    pace.observe_decode(1, 30_000)
    assert pace.filling_chunk(100_000) == FIRST_CHUNK_TOKENS


def test_one_point_alone_is_half_fixed() -> None:
    pace = Pace(2)
    pace.observe_chunk(256, 77_000)
    # sqrt(waiting * fixed / per token), where fixed / per token is 256.
    assert pace.filling_chunk(1024) == 512
    assert pace.filling_chunk(256) == 256


def test_points_that_make_no_line_are_one_point() -> None:
    pace = Pace(2)
    pace.observe_decode(64, 10_000)
    pace.observe_chunk(64, 20_000)
    assert pace.filling_chunk(64) == 64
    # A chunk that took less time than a decode step: noise, so it counts alone.
    faster = Pace(2)
    faster.observe_decode(1, 30_000)
    faster.observe_chunk(300, 20_000)
    assert faster.filling_chunk(4000) == math.ceil(math.sqrt(4000 * 300))


@pytest.mark.parametrize("line", LINES)
def test_what_was_is_forgotten(line: tuple[float, float]) -> None:
    pace = measured((1.0, 10_000.0), 4)
    observe(pace, line, 300, times=60)
    for num_waiting in (40, 1500, 20_000):
        expected = measured(line, 4).filling_chunk(num_waiting)
        assert pace.filling_chunk(num_waiting) == pytest.approx(expected, abs=1)


# Between decode steps


def stage_times(
    line: tuple[float, float], num_stages: int, num_lanes: int, num_steps: int = 2000
) -> tuple[float, float, int]:
    """Stage time of decode steps and of chunks between them, and the longest chunk in tokens; the
    pipeline is full all the time."""
    pace = measured(line, num_stages)
    decode_us = chunks_us = 0.0
    longest = 0
    for _ in range(num_steps):
        pace.decode_scheduled(num_lanes)
        decode_us += cost_us(line, NUM_ROWS)
        while size := pace.paced_chunk(10**6, num_lanes, num_stages):
            pace.chunk_scheduled(size)
            chunks_us += cost_us(line, size)
            longest = max(longest, size)
            assert chunks_us < 10 * decode_us + 1e7, "chunks without end"
    return decode_us, chunks_us, longest


@pytest.mark.parametrize("num_lanes", [1, 2, 4, 9])
@pytest.mark.parametrize("num_stages", [1, 2, 4])
@pytest.mark.parametrize("line", LINES)
def test_streams_and_prompts_share_the_time(
    line: tuple[float, float], num_stages: int, num_lanes: int
) -> None:
    decode_us, chunks_us, longest = stage_times(line, num_stages, num_lanes)
    longest_us = cost_us(line, longest)
    assert chunks_us <= PREFILL_SHARE * decode_us + longest_us
    # A prompt is not starved, however little time the decode steps leave.
    assert chunks_us >= 0.7 * PREFILL_SHARE * decode_us
    # No chunk holds up the round of a lane for longer than its streams bear, unless one that is
    # worth its fixed part does.
    step_us = cost_us(line, NUM_ROWS)
    num_in_round = max(num_lanes, num_stages)
    allowed_us = (1 + PREFILL_SHARE) * num_in_round * step_us
    worthwhile = math.ceil(math.ceil(line[0] / line[1]) / 2)
    slack = 1.001  # of the fit
    assert (
        num_stages * longest_us + step_us <= allowed_us * slack
        or longest_us <= PREFILL_SHARE * step_us * slack
        or longest <= worthwhile * slack + 1
    )


@pytest.mark.parametrize("line", LINES)
def test_each_chunk_is_worth_its_trip(line: tuple[float, float]) -> None:
    pace = measured(line, 2)
    even = line[0] / line[1]
    for _ in range(50):
        pace.decode_scheduled(2)
        size = pace.paced_chunk(10**6, 2, 2)
        assert size == 0 or size >= min(even / 2, MAX_CHUNK_TOKENS) * 0.999
        if size:
            pace.chunk_scheduled(size)
    # What is left of a prompt goes, however little it is.
    for _ in range(50):
        pace.decode_scheduled(2)
    assert pace.paced_chunk(1, 2, 2) >= 1


def test_nothing_is_earned_without_decode_steps() -> None:
    pace = measured(LINES[0], 2)
    assert pace.paced_chunk(1000, 2, 2) == 0
    # Unless a stage would be idle.
    assert pace.paced_chunk(1000, 2, 1) > 0
    assert pace.paced_chunk(1, 2, 1) >= 1


def test_idle_rounds_earn_no_more_than_one_chunk() -> None:
    pace = measured(LINES[0], 2)
    for _ in range(1000):
        pace.decode_scheduled(2)
    num_chunks = 0
    while size := pace.paced_chunk(10**6, 2, 2):
        pace.chunk_scheduled(size)
        num_chunks += 1
        assert num_chunks <= 2


def test_a_huge_chunk_is_paid_back_within_two_steps() -> None:
    pace = measured(LINES[0], 2)
    pace.decode_scheduled(2)
    pace.chunk_scheduled(100_000)
    for _ in range(5):
        pace.decode_scheduled(2)
    assert pace.paced_chunk(10**6, 2, 2) > 0


# Whatever was measured

observations = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["decode", "chunk"]),
            st.integers(1, 5000),
            st.sampled_from([0.0, 0.4, 1.0, 1e12]) | st.floats(0, 1e7),
        ),
        st.tuples(st.just("scheduled"), st.integers(0, 300), st.just(0.0)),
        st.tuples(st.just("went"), st.integers(1, 5000), st.just(0.0)),
    ),
    max_size=30,
)


@given(
    st.integers(1, 9),
    st.integers(1, 4096),
    observations,
    st.integers(1, 10**7),
    st.integers(0, 300),
    st.integers(0, 20),
)
def test_sizes_stay_within_bounds(
    num_stages: int,
    max_chunk_tokens: int,
    script: list[tuple[str, int, float]],
    num_waiting: int,
    num_lanes: int,
    num_in_flight: int,
) -> None:
    pace = Pace(num_stages, max_chunk_tokens)
    has_decoded = False
    for name, number, stage_us in script:
        match name:
            case "decode":
                pace.observe_decode(number, stage_us)
                has_decoded = True
            case "chunk":
                pace.observe_chunk(number, stage_us)
            case "scheduled":
                pace.decode_scheduled(number)
            case "went":
                pace.chunk_scheduled(number)
    filling = pace.filling_chunk(num_waiting)
    assert min(MIN_CHUNK_TOKENS, max_chunk_tokens) <= filling <= max_chunk_tokens
    paced = pace.paced_chunk(num_waiting, num_lanes, num_in_flight)
    assert 0 <= paced <= max_chunk_tokens
    if num_in_flight < num_stages or not has_decoded:
        assert paced > 0


def test_a_prompt_comes_in_again_after_steps_that_were_disturbed() -> None:
    """A worker that has just been started takes a thousand times as long for its first steps."""
    fixed_us, token_us, decode_us = 1900.0, 100.0, 2000.0
    pace = Pace(2)
    pace.observe_decode(1, decode_us)
    pace.observe_chunk(1, decode_us)
    pace.observe_chunk(2, 1e6)
    left, num_rounds = 800, 0
    while left and num_rounds < 200:
        pace.observe_decode(7, decode_us)
        pace.decode_scheduled(2)
        size = min(left, pace.paced_chunk(left, 2, 2))
        if size:
            pace.chunk_scheduled(size)
            pace.observe_chunk(size, fixed_us + size * token_us)
        left, num_rounds = left - size, num_rounds + 1
    assert left == 0
