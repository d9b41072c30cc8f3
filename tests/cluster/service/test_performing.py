"""Steps that are carried out: files and commands, in their order."""

import sys
from pathlib import Path

import pytest

from tbcluster.cluster.service.performing import SYSTEM_PATH, Ran, SystemRunner, perform
from tbcluster.cluster.service.steps import Remove, Run, WaitUntilFails, Write
from tbcluster.errors import ServiceError
from tests.doubles.service_runner import RecordingRunner


def test_steps_run_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "a.plist"
    runner = RecordingRunner(watched=tmp_path)
    perform((Run(("before",)), Write(path, b"x"), Run(("after",)), Remove(path)), runner)
    assert runner.commands == [("before",), ("after",)]
    assert runner.files == [[], ["a.plist"]]
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_and_readable_by_everyone(tmp_path: Path) -> None:
    path = tmp_path / "a.plist"
    path.write_text("a long definition from before")
    path.chmod(0o600)
    perform((Write(path, b"new"),), RecordingRunner())
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [left.name for left in tmp_path.iterdir()] == ["a.plist"]


def test_the_first_step_that_fails_ends_it(tmp_path: Path) -> None:
    runner = RecordingRunner(lambda command: Ran(5, "Input/output error"))
    with pytest.raises(ServiceError, match=r"`a 'b c'` failed \(exit 5\): Input/output error"):
        perform((Run(("a", "b c")), Run(("never",))), runner)
    assert runner.commands == [("a", "b c")]
    perform((Run(("a",), may_fail=True), Run(("b",), may_fail=True)), runner)
    assert runner.commands[1:] == [("a",), ("b",)]


def test_files_that_cannot_be_written_or_removed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ServiceError, match="cannot be written: No such file"):
        perform((Write(tmp_path / "none" / "a", b""),), RecordingRunner())
    with pytest.raises(ServiceError, match="folder cannot be written: Is a directory"):
        perform((Write(tmp_path / "folder", b""),), RecordingRunner())
    with pytest.raises(ServiceError, match="folder cannot be removed"):
        perform((Remove(tmp_path / "folder"),), RecordingRunner())
    assert [left.name for left in tmp_path.iterdir()] == ["folder"]
    perform((Remove(tmp_path / "none"),), RecordingRunner())


def test_a_service_is_waited_for_until_it_is_gone() -> None:
    answers = iter([Ran(0, "there"), Ran(0, "there"), Ran(113, "gone")])
    slept: list[float] = []
    runner = RecordingRunner(lambda command: next(answers))
    steps = (WaitUntilFails(("launchctl", "print", "x"), 60),)
    perform(steps, runner, clock=lambda: 0.0, sleep=slept.append)
    assert len(runner.commands) == 3
    assert len(slept) == 2


def test_but_not_forever() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(ServiceError, match="has not ended within 3 s"):
        perform(
            (WaitUntilFails(("print",), 3),), RecordingRunner(), clock=lambda: now[0], sleep=sleep
        )
    assert 3 < now[0] < 5


def test_real_commands() -> None:
    runner = SystemRunner()
    script = "import os, sys; print(os.environ['PATH']); sys.exit('oh')"
    ran = runner.run([sys.executable, "-c", script])
    assert ran.status == 1
    assert sorted(ran.output.splitlines()) == [SYSTEM_PATH, "oh"]
    assert runner.run_in_terminal([sys.executable, "-c", "raise SystemExit(4)"]) == 4
    for start in (runner.run, runner.run_in_terminal):
        with pytest.raises(ServiceError, match=r"`no-such-tool a` failed: .*No such file"):
            start(["no-such-tool", "a"])
