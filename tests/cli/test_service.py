"""`tbcluster service`: for real as far as it changes nothing, and with a manager that records."""

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tbcluster.cli.main import app
from tbcluster.cluster.service import SYSTEMD_RUNS, Services, launchd, systemd
from tbcluster.cluster.service.caller import Caller
from tbcluster.cluster.service.performing import Ran
from tbcluster.cluster.trust import TrustFolder
from tests.doubles.commands import run_here
from tests.doubles.service_runner import RecordingRunner


def service(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_here("service", *arguments, env={"TBCLUSTER_HOME": str(home), "COLUMNS": "200"})


def installed() -> list[Path]:
    return [path for folder in (systemd.FOLDER, launchd.FOLDER) for path in folder.glob("*tbcl*")]


def test_print_shows_the_file_and_the_commands_and_does_nothing(tmp_path: Path) -> None:
    before = installed()
    done = service(tmp_path, "install", "--print")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout
    assert "agent" in done.stdout
    assert "Then, as root:" in done.stdout
    assert "belongs to no cluster yet: `tbcluster join TOKEN` first" in done.stderr
    removal = service(tmp_path, "uninstall", "serve", "--print")
    assert removal.returncode == 0, removal.stderr
    assert "rm -f " in removal.stdout
    assert installed() == before
    assert not list(tmp_path.iterdir())


def test_the_head_node_needs_no_agents_service(tmp_path: Path) -> None:
    TrustFolder(tmp_path).init("studio", "mini1")
    hint = "`tbcluster service install serve MODEL`"
    assert hint in service(tmp_path, "install", "--print").stderr
    assert hint not in service(tmp_path, "install", "serve", "--print").stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "org/model", "--host", "10.1.2.3", "--drain", "75", "--print"],
        ["--print", "serve", "org/model", "--host", "10.1.2.3", "--drain", "75"],
        ["--print", "serve", "--", "org/model", "--host", "10.1.2.3", "--drain", "75"],
    ],
)
def test_the_arguments_of_serve_are_kept(tmp_path: Path, arguments: list[str]) -> None:
    done = service(tmp_path, "install", *arguments)
    assert done.returncode == 0, done.stderr
    plain = done.stdout.replace('"', "").replace("<string>", "").replace("</string>\n\t\t", " ")
    assert "serve org/model --host 10.1.2.3 --drain 75" in plain
    # As long as its answers may take, and a while for its stages.
    assert "90" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--pork", "1"], "No such option: --pork"),
        (["serve", "--port", "x"], "Invalid value for '--port'"),
        (["agent", "model"], "unexpected extra argument"),
        (["worker"], "'worker' is not one of 'agent', 'serve'"),
    ],
)
def test_what_would_fail_at_each_start_is_refused_now(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = service(tmp_path, "install", "--print", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert not done.stdout


@pytest.mark.skipif(SYSTEMD_RUNS.is_dir(), reason="systemd runs here, and would be asked")
def test_where_nothing_starts_services(tmp_path: Path) -> None:
    for arguments in (["status"], ["install"], ["install", "--yes"], ["uninstall", "--yes"]):
        done = service(tmp_path, *arguments)
        assert done.returncode == 1
        assert "systemd does not run here" in done.stderr
        assert "Traceback" not in done.stderr
    assert not installed()


class Recorded:
    """`tbcluster service` of root on a Linux machine whose systemd only writes down what it is
    told, and says what `answer` is."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.units = folder / "units"
        self.units.mkdir()
        self.answer = Ran(0, "MainPID=71\n")
        self.runner = RecordingRunner(lambda command: self.answer)
        self.services = Services(
            systemd.Systemd(self.units),
            Caller("ada", folder, True, folder / "state", folder / "state"),
            self.runner,
            is_managed=True,
            program=("/opt/tbcluster",),
            folder=folder,
        )
        monkeypatch.setattr("tbcluster.cluster.service.this_machine", lambda: self.services)

    def say(self, *arguments: str, answers: str = "") -> tuple[str, BaseException | None]:
        done = CliRunner().invoke(app, ["service", *arguments], input=answers)
        return done.output, done.exception


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(tmp_path, monkeypatch)


def test_nothing_is_done_without_a_yes(recorded: Recorded) -> None:
    for answers in ("n\n", ""):
        for arguments in (["install"], ["uninstall"]):
            _, error = recorded.say(*arguments, answers=answers)
            assert "nothing was changed" in str(error)
    assert not recorded.runner.commands
    assert not list(recorded.units.iterdir())


@pytest.mark.parametrize(("arguments", "answers"), [([], "y\n"), (["--yes"], "")])
def test_installed_shown_and_removed(
    recorded: Recorded, arguments: list[str], answers: str
) -> None:
    said, error = recorded.say("install", *arguments, answers=answers)
    assert error is None
    (unit,) = recorded.units.iterdir()
    assert unit.read_text() in said
    assert recorded.runner.commands[2][1] == "restart"
    said, _ = recorded.say("status")
    assert "agent    runs (pid 71)  journalctl" in said
    said, _ = recorded.say("status", "--json")
    assert [(one["kind"], one["is_installed"], one["pid"]) for one in json.loads(said)] == [
        ("agent", True, 71),
        ("serve", False, 71),
    ]
    _, error = recorded.say("uninstall", *arguments, answers=answers)
    assert error is None
    assert not list(recorded.units.iterdir())


def test_whoever_has_shown_and_asked_already_hears_nothing(recorded: Recorded) -> None:
    said, error = recorded.say("install", "--yes", "--quiet")
    assert (said, error) == ("", None)
    assert len(list(recorded.units.iterdir())) == 1


def test_a_service_that_ended_is_told(recorded: Recorded) -> None:
    recorded.say("install", "--yes")
    recorded.answer = Ran(0, "MainPID=0\nExecMainStatus=3\nExecMainExitTimestampMonotonic=5\n")
    said, _ = recorded.say("status")
    assert "not running (exit 3)" in said
    assert "not installed" in said
