"""A plan on the screen."""

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tbcluster.cli.plan_view import (
    ASCII_MARKS,
    bar_widths,
    figure,
    model_line,
    part_of,
    seconds,
    show_briefly,
    show_plan,
    size,
)
from tbcluster.planner.plan import Plan
from tests.doubles.plans import GIB, ONE, PROFILE, RACK, TWO, replica, stage


def shown(plan: Plan, width: int = 80, encoding: str = "utf-8", *, is_terminal: bool = True) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    screen = Console(
        file=file,
        width=width,
        highlight=False,
        force_terminal=is_terminal,
        color_system=None,
    )
    show_plan(screen, plan, PROFILE, RACK)
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_every_fact_is_there_at_every_width(width: int) -> None:
    text = shown(TWO, width)
    lines = text.splitlines()
    assert max(map(len, lines[1:])) <= width, "only the model's line may be longer"
    flat = " ".join(text.split())
    for fact in (
        "Qwen3-32B: 32 layers, 671 billion parameters (37 billion used by each token)",
        "replica 1 of 2, for 2 streams:",
        "mini4",
        "20-31",
        "35 GiB",
        "21.3 ms",
        "1.2 s",
        "310 us",
        "88 % of memory",
        "20.4 tokens/s for one stream, 82.5 for 4 streams together",
        "prompts at 1,230 tokens/s",
        "8,192 tokens of context for each of 4 streams",
        "may have 131,072",
        "old-mini: it would only slow the others down",
        "memory decides: [no node] holds all layers",
        "mini2: taken from a table of chips, not measured",
    ):
        assert fact in flat, fact
    if width >= 60:
        assert "42 of 48 GiB" in flat


def test_prose_is_not_wrapped_where_no_terminal_is() -> None:
    why = "it " + "is long " * 20 + "because it has to be"
    text = shown(replace(ONE, reasons=(why,)), width=40, is_terminal=False)
    assert f"  {why}" in text.splitlines()
    prose = text[text.index("predicted") :].splitlines()
    assert prose == [line.rstrip() for line in prose]


def test_the_columns_of_times_say_what_they_count() -> None:
    said = "decode: a step of 1 stream (2 take turns in 2 groups) at 4,096 tokens"
    assert said in shown(ONE, 140)
    assert shown(TWO, 140).count(said) == 1
    alone = replace(ONE, replicas=(replica(stage("mini1", 6, 7)),))
    text = shown(alone, 140)
    assert "decode: a step of 2 streams at 4,096 tokens" in text
    assert "mini1  6 " in text


def test_one_replica_has_no_number_and_measured_nodes_no_note() -> None:
    text = shown(ONE)
    assert "replica" not in text
    assert "mini1:" not in text


def test_terminals_without_blocks_get_letters() -> None:
    text = shown(ONE, encoding="ascii")
    bar = next(line for line in text.splitlines() if line.startswith("mini1  #"))
    assert [mark for mark in ASCII_MARKS if mark in bar] == list(ASCII_MARKS)
    assert "# weights   = KV caches   + activations   - reserve   . free" in text


def test_a_node_of_two_stages_has_one_bar_for_both() -> None:
    small = replace(stage("mini1", 0, 16), weight_bytes=16 * GIB)
    plan = replace(
        ONE, replicas=(replica(small, replace(small, layers=ONE.replicas[0].stages[1].layers)),)
    )
    text = shown(plan)
    assert text.count("% of memory") == 1
    assert "96 % of memory" in text


def test_what_serve_prints_is_short() -> None:
    file = io.StringIO()
    show_briefly(Console(file=file, width=80, highlight=False), ONE)
    text = file.getvalue()
    assert "16-31" in text
    assert "tokens/s for one stream" in text
    assert "memory decides" not in text
    assert len(text.splitlines()) < 15


def test_a_dense_model_uses_all_its_parameters() -> None:
    dense = replace(PROFILE, num_parameters=32_800_000_000, active_parameters=32_800_000_000)
    assert (
        model_line(dense)
        == "Qwen3-32B: 32 layers, 32.8 billion parameters, 34 GiB of weights (4-bit/64)"
    )


def test_widened_weights_are_told_from_their_files() -> None:
    (line, other) = (
        model_line(replace(PROFILE, weight_kind="bfloat16", file_bytes=size))
        for size in (17 * GIB, 33 * GIB)
    )
    assert line.endswith("34 GiB of weights (bfloat16, widened on loading from files of 17 GiB)")
    assert other.endswith("34 GiB of weights (bfloat16)")


@given(
    parts=st.lists(st.integers(0, 10**13), min_size=5, max_size=5),
    width=st.integers(10, 60),
)
def test_bars_fill_their_width_and_hide_nothing(parts: list[int], width: int) -> None:
    widths = bar_widths(parts, width)
    assert sum(widths) == (width if any(parts) else 0)
    assert [part > 0 for part in parts] == [marks > 0 for marks in widths]
    for part, marks in zip(parts, widths, strict=True):
        assert abs(marks - part * width / max(1, sum(parts))) <= len(parts)


def test_amounts() -> None:
    assert [size(5.2 * 2**20), size(512 * 2**20), size(37.4 * GIB)] == [
        "5.2 MiB",
        "512 MiB",
        "37.4 GiB",
    ]
    assert size(1249.9 * GIB) == "1,249.9 GiB"
    assert part_of(37 * GIB, 48 * GIB) == "37 of 48 GiB"
    assert part_of(2**20, 48 * GIB) == "1.0 MiB of 48 GiB"
    assert [seconds(3.1e-4), seconds(0.0123), seconds(61.2)] == ["310 us", "12.3 ms", "61.2 s"]
    assert [figure(0.123456), figure(21.34), figure(1234.5)] == ["0.123", "21.3", "1,230"]
