"""Fetching on the screen."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from tbcluster.cli import fetch_bars
from tbcluster.cli.fetch_bars import FetchBars, fetch_line, fetch_table
from tbcluster.cluster.rack.fetching import FetchStatus
from tbcluster.weights.amounts import decimal

HALF = FetchStatus("mini1", 5 * 10**9, 10**10, held_bytes=10**9, hub_bytes=4 * 10**9)
WHOLE = FetchStatus("mini[2]", 2 * 10**9, 2 * 10**9, neighbour_bytes=2 * 10**9, is_done=True)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is drawn on a terminal."""
    file = io.StringIO()
    terminal = Console(file=file, force_terminal=True, width=100)
    monkeypatch.setattr(fetch_bars, "console", terminal)
    return file


def test_each_node_has_a_bar_until_the_end(screen: io.StringIO) -> None:
    with FetchBars() as bars:
        assert not screen.getvalue()
        bars.show([HALF, WHOLE])
        bars.show([HALF, WHOLE])
    drawn = screen.getvalue()
    assert "mini1" in drawn
    assert "mini[2]" in drawn
    assert "5.0/10.0 GB" in drawn
    before = len(drawn)
    bars.close()
    assert len(screen.getvalue()) == before


def test_a_finished_bar_tells_neither_speed_nor_time(screen: io.StringIO) -> None:
    with FetchBars() as bars:
        bars.show([HALF, WHOLE])
    lines = [line for line in screen.getvalue().split("\n") if "mini[2]" in line]
    assert "2.0/2.0 GB" in lines[-1]
    assert not re.search(r"\?|-:--|0:00", lines[-1].partition("GB")[2]), lines[-1]


def test_into_a_file_goes_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 5.0
    moving = replace(HALF, bytes_per_s=2.5e8)
    with FetchBars(lambda: now) as bars:
        bars.show([moving, WHOLE])
        now += 9
        bars.show([moving, WHOLE])
        assert not capsys.readouterr().err
        now += 1
        bars.show([moving, WHOLE])
        bars.show([moving, WHOLE])
    assert capsys.readouterr().err == "mini1: 5 GB of 10 GB there, 250 MB/s\n"


def test_what_came_from_where() -> None:
    file = io.StringIO()
    Console(file=file, width=80).print(fetch_table([HALF, WHOLE]))
    first, second = (line.split() for line in file.getvalue().splitlines()[1:])
    assert first == ["mini1", "5", "GB", "1", "GB", "0", "B", "4", "GB"]
    assert second[0] == "mini[2]"
    line = fetch_line([HALF, WHOLE], 10.0)
    assert line == "4 GB from the hub, 2 GB from nodes, in 10.0 s: 600 MB/s"
    there = FetchStatus("mini1", 1, 1, held_bytes=1, is_done=True)
    assert fetch_line([there], 0.5) == "everything was there already"


def test_decimal_units() -> None:
    sizes = (0, 999, 1000, 12_345_678, 999_999_999, 4 * 10**11, 2 * 10**15)
    assert [decimal(size) for size in sizes] == [
        "0 B",
        "999 B",
        "1 kB",
        "12.3 MB",
        "1,000 MB",
        "400 GB",
        "2,000 TB",
    ]
