"""The process that measures this machine, as an agent starts it."""

import queue
import subprocess
import sys

import pytest

from tbcluster.cluster.supervisor import Worker
from tbcluster.model.device import current_device
from tbcluster.model.speed import ROWS, clock_of, toy_stage
from tbcluster.stage import calibrate as module
from tbcluster.stage.calibrate import step_s
from tbcluster.wire.control import Failed, Report
from tbcluster.wire.errands import Calibrated, CalibrateSpec
from tests.doubles.waiting import DEADLINE_S

DEVICE = current_device()


def run(*kinds: str) -> tuple[list[Report], str]:
    """What it says, and how it ends."""
    said: queue.SimpleQueue[Report | str] = queue.SimpleQueue()
    worker = Worker("tbcluster.stage.calibrate", CalibrateSpec(kinds), said.put, said.put)
    try:
        reports: list[Report] = []
        while not isinstance(news := said.get(timeout=DEADLINE_S), str):
            reports.append(news)
        return reports, news
    finally:
        worker.stop()


def test_a_machine_is_measured() -> None:
    reports, ended = run("float32")
    assert ended == "ended with status 0"
    (report,) = reports
    assert isinstance(report, Calibrated)
    (speed,) = report.speeds
    assert speed.kind == "float32"
    rows = [rows for rows, _ in speed.rates]
    assert rows == list(ROWS[: len(rows)])
    rates = dict(speed.rates)
    # From memory's speed to that of a slow core; a prompt's rows share what is read of it.
    assert 1e-13 < rates[1] < 1e-8
    assert rates[16] < 16 * rates[1]
    assert 0 < speed.layer_s < 0.1
    assert 0 <= speed.stage_s < 0.1
    assert 0 < speed.cache_s_per_byte < 1e-6


def test_a_kind_that_is_not_known() -> None:
    reports, ended = run("float7")
    assert ended == "ended with status 1"
    (report,) = reports
    assert isinstance(report, Failed)
    assert report.kind == "StageError"
    assert "'float7'" in report.message


def test_it_ends_with_who_started_it() -> None:
    command = [sys.executable, "-P", "-m", "tbcluster.stage.calibrate"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=DEADLINE_S)
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_longer_stage_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_S", 0.02)
    clock = clock_of(DEVICE)
    few, many = (step_s(toy_stage(count, DEVICE)[0], clock) for count in (1, 12))
    assert few < many < 24 * few
