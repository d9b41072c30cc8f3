"""What long work shows meanwhile, on a terminal and into a file."""

import io
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.harness import interleaved_pairs
from tbcluster.cli import loading
from tbcluster.cli import plan as plan_command
from tbcluster.cli.loading import StageBars
from tbcluster.cli.progress import SAY_AFTER_S, SAY_AGAIN_S, CountBar, Doings, busy, saying
from tbcluster.cluster import own_speed
from tbcluster.cluster.stage_status import StageStatus
from tbcluster.core import StageRange
from tests.doubles.commands import run_here
from tests.doubles.waiting import wait_until


def screen(*, is_terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=is_terminal, width=100), file


def said(seen: Sequence[tuple[float, str | None]]) -> list[str]:
    doings = Doings()
    lines = [doings.see(doing, at) for at, doing in seen]
    return [line for line in lines if line is not None]


def test_what_takes_its_time_is_said_once_and_then_now_and_then() -> None:
    checking = [(0.5 * step, "checking the output") for step in range(50)]
    assert said(checking) == [
        "checking the output ...",
        "checking the output ... (12 s)",
        "checking the output ... (22 s)",
    ]


def test_what_is_quick_or_has_bars_is_not_spoken_of() -> None:
    assert said([(0.0, "a"), (1.0, "b"), (2.0, None), (9.0, None), (9.1, "c")]) == []
    assert said([(0.0, "loading stage 1: 40 %"), (9.0, "loading stage 1: 40 %")]) == []


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.sampled_from(["a", "b", None]))))
def test_lines_about_one_thing_keep_their_distance(steps: list[tuple[float, str | None]]) -> None:
    doings, now, since, said_at = Doings(), 0.0, 0.0, None
    before: str | None = None
    for passed, doing in steps:
        now += passed
        if doing != before:
            before, since, said_at = doing, now, None
        line = doings.see(doing, now)
        is_due = now - since >= SAY_AFTER_S if said_at is None else now - said_at >= SAY_AGAIN_S
        assert (line is not None) == (doing is not None and is_due)
        said_at = now if line is not None else said_at


def test_the_thread_says_it_and_ends() -> None:
    console, file = screen(is_terminal=False)
    times = iter(range(10**6))
    with saying(lambda: "waiting for \x1b[2Jmini2", console, lambda: float(next(times))):
        wait_until(lambda: "waiting for" in file.getvalue(), "a line is said")
    assert "progress" not in {thread.name for thread in threading.enumerate()}
    assert "\x1b" not in file.getvalue()


def test_a_terminal_has_a_spinner_that_goes() -> None:
    console, file = screen(is_terminal=True)
    with busy("planning", console) as now:
        now("measuring this machine, once")
        wait_until(lambda: "measuring this machine, once ..." in file.getvalue(), "it is drawn")


def test_into_a_file_goes_how_many_are_done() -> None:
    now = 0.0
    console, file = screen(is_terminal=False)
    with CountBar("simulating ring, requests", 40, console, lambda: now) as bar:
        bar.show(3)
        assert file.getvalue() == ""
        now = SAY_AGAIN_S
        bar.show(12)
        bar.show(13)
    assert file.getvalue() == "simulating ring, requests: 12 of 40\n"


def test_a_terminal_has_a_bar_of_them() -> None:
    console, file = screen(is_terminal=True)
    with CountBar("simulating ring, requests", 40, console) as bar:
        bar.show(20)
    assert "simulating ring, requests" in file.getvalue()
    assert "50%" in file.getvalue()


def test_into_a_file_goes_how_much_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    console, file = screen(is_terminal=False)
    monkeypatch.setattr(loading, "console", console)
    half = StageStatus(
        index=1,
        layers=StageRange(16, 32),
        node="mini2",
        loaded_bytes=5 * 10**9,
        total_bytes=10**10,
    )
    now = 0.0
    with StageBars(lambda: now) as bars:
        bars.show([half])
        now = SAY_AGAIN_S
        bars.show([half])
        bars.show([half])
    assert file.getvalue() == "stage 1  layers 16-31  on mini2: 5 GB of 10 GB loaded\n"


def test_a_plan_says_that_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    console, file = screen(is_terminal=True)
    monkeypatch.setattr(plan_command, "console", console)
    monkeypatch.setattr(own_speed.SpeedBook, "find", lambda *_: {})

    def measured(*_: object) -> object:
        wait_until(lambda: "measuring this machine, once ..." in file.getvalue(), "it is drawn")
        raise own_speed.StageError("measured enough")

    monkeypatch.setattr(own_speed, "_measured", measured)
    assert run_here("plan", "--local").returncode == 0
    assert "planning ..." in file.getvalue()


def test_a_benchmark_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0

    def side() -> float:
        nonlocal now
        now += 1.0
        return now

    pairs = interleaved_pairs(side, side, 3, lambda: now)
    assert pairs == [(3.0, 4.0), (5.0, 6.0), (7.0, 8.0)]
    assert capsys.readouterr().err.splitlines() == [
        "warmed up; 6 s to go",
        "pair 1 of 3; 4 s to go",
        "pair 2 of 3; 2 s to go",
    ]
