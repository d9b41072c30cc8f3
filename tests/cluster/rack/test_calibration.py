"""Speeds of nodes, which are scripts: who is asked, and what is kept."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.cluster.rack import calibration
from tbcluster.cluster.rack.calibration import measured_speeds
from tbcluster.cluster.speed_book import SpeedBook
from tbcluster.errors import ClusterClosedError
from tbcluster.machine import NodeState
from tbcluster.planner.nodes import NodeSpeed
from tbcluster.wire.control import Failed, Report
from tbcluster.wire.errands import Calibrated, CalibrateSpec, MeasuredSpeed
from tbcluster.wire.rack import FromAgent, FromCoordinator, StartWorker, WorkerEnded, WorkerSaid
from tests.doubles.control_planes import RackOfScripts
from tests.doubles.scripted_agent import ScriptedAgent

KIND = "4-bit/64"
RATES = ((1, 2e-12), (64, 3e-12))
SPEED = NodeSpeed(RATES, 1e-4, 2e-4, 3e-12)
MEASURED = Calibrated((MeasuredSpeed(KIND, RATES, 1e-4, 2e-4, 3e-12),))


class Measured:
    """A rack whose nodes answer a calibration as the test says."""

    def __init__(self, path: Path) -> None:
        self.rack = RackOfScripts(path / "head")
        self.book = SpeedBook(path)

    def bring_up(self, name: str, report: Report | None = MEASURED) -> ScriptedAgent:
        """A node that reports this; None for one that ends without a word."""
        agent = self.rack.bring_up(name)

        def answer(message: FromCoordinator) -> FromAgent | None:
            if not isinstance(message, StartWorker):
                return None
            if report is not None:
                agent.say(WorkerSaid(message.worker_id, report, 1))
            agent.say(WorkerEnded(message.worker_id, "ended with status 0", 2 if report else 1))
            return None

        agent.answer = answer
        return agent

    def speeds(self, gives_up: Callable[[], bool] = lambda: False) -> dict[str, NodeSpeed]:
        nodes = self.rack.plane.nodes()
        found = measured_speeds(self.rack.plane, nodes, KIND, self.book, gives_up)
        names = {node.node_id: node.name for node in nodes}
        return {names[node_id]: speed for node_id, speed in found.items()}


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Measured]:
    made = Measured(tmp_path)
    with made.rack:
        yield made


def test_nodes_are_measured_once(measured: Measured) -> None:
    agents = [measured.bring_up(name) for name in ("one", "two")]
    measured.rack.admit("away")
    assert measured.speeds() == {"one": SPEED, "two": SPEED}
    assert measured.speeds() == {"one": SPEED, "two": SPEED}
    for agent in agents:
        (order,) = agent.all_of(StartWorker)
        assert order.spec == CalibrateSpec((KIND,))


@pytest.mark.parametrize("report", [Failed("StageError", "no such kind"), None])
def test_one_that_cannot_be_measured_is_missing(
    measured: Measured, report: Report | None, caplog: pytest.LogCaptureFixture
) -> None:
    measured.bring_up("one")
    measured.bring_up("two", report)
    assert measured.speeds() == {"one": SPEED}
    assert "two's speed could not be measured: it is taken by its chip" in caplog.text


def test_one_that_runs_stages_is_left_alone(measured: Measured) -> None:
    agent = measured.bring_up("one")
    busy = [replace(node, stages=("0: layers 0-3",)) for node in measured.rack.plane.nodes()]
    plane, book = measured.rack.plane, measured.book
    assert measured_speeds(plane, busy, KIND, book, lambda: False) == {}
    assert agent.all_of(StartWorker) == []


def test_one_that_says_nothing_is_not_waited_for_for_ever(
    measured: Measured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calibration, "CALIBRATE_S", 0.0)
    monkeypatch.setattr("tbcluster.cluster.rack.errands.STOP_GRACE_S", 0.1)
    measured.rack.bring_up("one")
    assert measured.speeds() == {}
    assert "one's speed" in caplog.text


def test_whoever_waits_can_give_up(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbcluster.cluster.rack.errands.STOP_GRACE_S", 0.1)
    measured.rack.bring_up("one")
    with pytest.raises(ClusterClosedError):
        measured.speeds(lambda: True)


def test_only_nodes_that_are_there_are_asked(measured: Measured) -> None:
    agent = measured.bring_up("one")
    gone = [replace(node, state=NodeState.REFUSED) for node in measured.rack.plane.nodes()]
    plane, book = measured.rack.plane, measured.book
    assert measured_speeds(plane, gone, KIND, book, lambda: False) == {}
    assert agent.all_of(StartWorker) == []
