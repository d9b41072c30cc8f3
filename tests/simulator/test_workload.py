"""What clients ask."""

from pathlib import Path

import pytest

from tbcluster.errors import SimulationError
from tbcluster.simulator.failures import Failure, parse_failure
from tbcluster.simulator.workload import (
    Lengths,
    closed_loop,
    open_loop,
    parse_lengths,
    read_trace,
)


def test_lengths() -> None:
    assert parse_lengths("512") == Lengths(512, 512)
    assert parse_lengths(" 128-2048 ") == Lengths(128, 2048)


@pytest.mark.parametrize("text", ["", "x", "5-", "0", "9-3", "-4", "1-99999999", "1.5"])
def test_what_is_no_length_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(SimulationError) as refused:
        parse_lengths(text)
    assert repr(text) in str(refused.value)


def test_equal_seeds_draw_equal_requests() -> None:
    drawn = [open_loop(2.0, 500, Lengths(10, 1000), Lengths(5, 50), seed=7) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != open_loop(2.0, 500, Lengths(10, 1000), Lengths(5, 50), seed=8)
    requests = drawn[0].requests
    assert all(10 <= one.num_prompt <= 1000 and 5 <= one.num_output <= 50 for one in requests)
    assert requests[-1].arrival_s == pytest.approx(250, rel=0.2)
    # Small prompts are as likely as large ones of the same order of magnitude.
    small = sum(one.num_prompt < 100 for one in requests)
    assert small / 500 == pytest.approx(0.5, abs=0.1)


def test_no_prompt_shares_more_than_it_has() -> None:
    drawn = closed_loop(2, 50, Lengths(10, 100), Lengths(1, 1), shared=50)
    assert all(one.num_shared == min(50, one.num_prompt) for one in drawn.requests)
    assert drawn.clients == 2


def test_a_trace_is_read_in_order_of_arrival(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(
        '{"arrival_s": 2, "prompt_tokens": 5, "output_tokens": 6}\n\n'
        '{"arrival_s": 0.5, "prompt_tokens": 7, "output_tokens": 8}\n'
    )
    assert [one.num_prompt for one in read_trace(trace).requests] == [7, 5]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nothing", "no JSON"),
        ("[1]", "no JSON object"),
        ('{"prompt_tokens": 1, "output_tokens": 1}', "arrival_s is missing"),
        ('{"arrival_s": -1, "prompt_tokens": 1, "output_tokens": 1}', "arrival_s is -1"),
        ('{"arrival_s": NaN, "prompt_tokens": 1, "output_tokens": 1}', "arrival_s is nan"),
        ('{"arrival_s": true, "prompt_tokens": 1, "output_tokens": 1}', "arrival_s is True"),
        ('{"arrival_s": 1, "prompt_tokens": 0, "output_tokens": 1}', "prompt_tokens is 0"),
        ('{"arrival_s": 1, "prompt_tokens": 4, "output_tokens": "x"}', "output_tokens is 'x'"),
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, line: str, named: str) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"arrival_s": 0, "prompt_tokens": 5, "output_tokens": 6}\n' + line)
    with pytest.raises(SimulationError, match="line 2") as refused:
        read_trace(trace)
    assert named in str(refused.value)


def test_an_empty_or_missing_trace(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="cannot be read"):
        read_trace(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(SimulationError, match="no requests"):
        read_trace(tmp_path / "empty.jsonl")


def test_failures() -> None:
    assert parse_failure("mini2@30") == Failure("mini2", 30)
    assert parse_failure("mini-2@1.5-90") == Failure("mini-2", 1.5, 90)
    for text in ("mini2", "@3", "mini2@x", "mini2@9-3"):
        with pytest.raises(SimulationError):
            parse_failure(text)
