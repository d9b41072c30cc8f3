"""How `tbcluster serve` ends when it is told to begin anew, wherever it is."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tbcluster.cli import ending
from tbcluster.cli.ending import HUNG_UP, TERMINATED, Restart, end_on_signals, forgetting
from tbcluster.cluster.desired import NAME, DesiredModels
from tbcluster.errors import StageError
from tests.doubles.waiting import DEADLINE_S, wait_until

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class RackOfNone:
    """A rack that notes how it is left."""

    def __init__(self) -> None:
        self.is_left = threading.Event()
        self.keeps: list[bool] = []

    def close(self, *, keeps_workers: bool = False) -> None:
        self.keeps.append(keeps_workers)
        self.is_left.set()


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the system has them, before and after."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    monkeypatch.setattr(ending.sys, "stdin", None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def server() -> Any:
    return SimpleNamespace(should_exit=False, handle_exit=lambda number, frame: None)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each time that the command would have been run anew."""
    lines: list[str] = []
    monkeypatch.setattr(Restart, "begin_anew", lambda _: lines.append("anew"))
    return lines


def await_signal(number: int) -> None:
    """Get this signal, which raises something."""
    os.kill(os.getpid(), number)
    wait_until(lambda: False, "the signal is heard")


def test_a_rack_is_left_before_a_load_fails_of_it(
    server: Any, begun: list[str], tmp_path: Path
) -> None:
    rack, desired = RackOfNone(), DesiredModels(tmp_path)
    desired.keep("m", None)
    before = (tmp_path / NAME).read_bytes()
    restart = end_on_signals(server)
    with (
        restart.beginning_anew(),
        forgetting(desired, restart),
        restart.keeping_workers(rack, desired),  # type: ignore[arg-type]
    ):
        os.kill(os.getpid(), signal.SIGHUP)
        assert rack.is_left.wait(DEADLINE_S)
        # What a load does that cannot be done as before, and ends with.
        desired.forget_preparation("m")
        raise StageError("the rack was closed")
    assert begun == ["anew"]
    assert set(rack.keeps) == {True}
    assert (tmp_path / NAME).read_bytes() == before
    assert server.should_exit


def test_who_serves_leaves_the_rack_at_the_end(
    server: Any, begun: list[str], tmp_path: Path
) -> None:
    rack, desired = RackOfNone(), DesiredModels(tmp_path)
    restart = end_on_signals(server)
    waits = SimpleNamespace(wait=lambda: os.kill(os.getpid(), signal.SIGHUP))
    with (
        restart.beginning_anew(),
        restart.keeping_workers(rack, desired),  # type: ignore[arg-type]
    ):
        restart.wait(waits)  # type: ignore[arg-type]
        wait_until(lambda: restart.is_asked, "the signal is heard")
        assert rack.keeps == []
    assert rack.keeps == [True]
    assert desired.is_sealed
    assert begun == ["anew"]


def test_an_end_on_purpose_leaves_nothing_and_is_final(
    server: Any, begun: list[str], tmp_path: Path
) -> None:
    rack, desired = RackOfNone(), DesiredModels(tmp_path)
    desired.keep("m", None)
    restart = end_on_signals(server)

    def serve() -> None:
        with (
            restart.beginning_anew(),
            forgetting(desired, restart),
            restart.keeping_workers(rack, desired),  # type: ignore[arg-type]
        ):
            try:
                await_signal(signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(SystemExit) as ended:
        serve()
    assert ended.value.code == TERMINATED
    assert (begun, rack.keeps) == ([], [])
    assert not (tmp_path / NAME).exists()


def test_before_there_is_a_rack_it_ends_at_once(server: Any, begun: list[str]) -> None:
    restart = end_on_signals(server)
    with pytest.raises(SystemExit) as ended:
        await_signal(signal.SIGHUP)
    assert ended.value.code == HUNG_UP
    assert restart.is_asked
    assert begun == []
