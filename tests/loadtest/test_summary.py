"""Figures of a cell from made-up samples."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.loadtest.plan import Cell, LoadPlan
from tbcluster.loadtest.report import Facts, ratios, read_earlier, to_json
from tbcluster.loadtest.run import Measured
from tbcluster.loadtest.samples import Sample
from tbcluster.loadtest.summary import percentile, spread, summarize

CELL = Cell(2, 8)
VALUES = st.lists(st.floats(0, 1e6), min_size=1)


def sample(*chunks_at: float, tokens: int | None = None, error: str | None = None) -> Sample:
    total_s = chunks_at[-1] if chunks_at else 0.0
    return Sample(0.0, 4, list(chunks_at), total_s, 8, tokens, error=error)


@given(VALUES, st.floats(0.1, 100))
def test_a_percentile_is_a_value_that_occurred(values: list[float], percent: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert found in values
    assert 100 * sum(value <= found for value in values) >= percent * len(values) - 1e-6


@given(VALUES)
def test_percentiles_rise(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    assert min(values) <= found.p50 <= found.p90 <= found.p99 <= found.most == max(values)


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=50))
def test_first_token_and_gaps_are_the_whole_time(waits: list[float]) -> None:
    times = [sum(waits[: end + 1]) for end in range(len(waits))]
    one = sample(*times)
    assert one.first_token_s + sum(one.gaps_s) == pytest.approx(one.total_s)


def test_rates_are_of_the_tokens_that_came() -> None:
    found = summarize(CELL, [sample(1.0, 2.0, 3.0, tokens=3), sample(1.0, 3.0, tokens=4)], 5.0)
    assert found.output_tokens_per_s == pytest.approx(7 / 5)
    assert found.num_good == 2
    assert found.num_short == 1
    assert found.piece_tokens == pytest.approx(7 / 5)
    assert found.prompt_tokens == (8, 8)


def test_errors_are_counted_and_never_in_rates() -> None:
    bad = sample(1.0, tokens=1, error="HTTP 500: no")
    found = summarize(CELL, [sample(1.0, 2.0, tokens=2), bad, bad, sample()], 2.0)
    assert found.errors == (("HTTP 500: no", 2), ("no token came", 1))
    assert found.num_good == 1
    assert found.output_tokens_per_s == pytest.approx(1.0)


def test_a_run_against_itself_is_one() -> None:
    samples = [sample(1.0, 2.0, tokens=2)]
    measured = [Measured(CELL, samples, summarize(CELL, samples, 2.0))]
    facts = Facts("http://h", "", "m", "chat", datetime(2026, 1, 1, tzinfo=UTC), "here", True)
    content = to_json(facts, LoadPlan((2,), (8,)), measured)
    assert json.loads(content)["cells"][0]["samples"][0]["chunks_at"] == [1.0, 2.0]
    (ratio,) = ratios(read_earlier(content), measured)
    assert (ratio.output_tokens_per_s, ratio.first_token_s, ratio.gap_s) == (1, 1, 1)


def test_only_cells_that_both_have_are_compared() -> None:
    samples = [sample(1.0, 2.0, tokens=2)]
    other = Cell(4, 8)
    measured = [Measured(other, samples, summarize(other, samples, 2.0))]
    facts = Facts("http://h", "", "m", "chat", datetime(2026, 1, 1, tzinfo=UTC), "here", True)
    earlier = [Measured(CELL, samples, summarize(CELL, samples, 2.0))]
    content = to_json(facts, LoadPlan((2,), (8,)), earlier)
    assert ratios(read_earlier(content), measured) == []


@pytest.mark.parametrize(
    "content",
    [
        *("", "{}", "[]", '{"format": "other", "cells": []}'),
        # A cell that lacks its figures.
        '{"format": "tbcluster-load-1", "cells": [{"cell": {"streams": 1, "prompt_tokens": 8}}]}',
    ],
)
def test_another_file_is_refused(content: str) -> None:
    with pytest.raises(ValueError, match="bench --json"):
        read_earlier(content)
