"""Services shown, installed, removed and asked, up to the commands themselves."""

import plistlib
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.cluster.service import ServiceKind
from tbcluster.cluster.service.caller import Caller
from tbcluster.cluster.service.definition import ServiceManager
from tbcluster.cluster.service.launchd import Launchd
from tbcluster.cluster.service.performing import Ran
from tbcluster.cluster.service.services import Services
from tbcluster.cluster.service.systemd import Systemd
from tbcluster.errors import ServiceError
from tests.doubles.service_runner import RecordingRunner

STATE = Path("/Users/ada/Library/Application Support/tbcluster")
ADA = Caller("ada", Path("/Users/ada"), True, STATE, STATE)
PROGRAM = ("/opt/my tools/tbcluster",)


class FakeLaunchd:
    """Knows one service, which is loaded or not."""

    def __init__(self) -> None:
        self.is_loaded = False

    def __call__(self, command: tuple[str, ...]) -> Ran:
        was_loaded = self.is_loaded
        match command[1]:
            case "bootstrap":
                self.is_loaded = True
                return Ran(5 if was_loaded else 0, "")
            case "bootout":
                self.is_loaded = False
                return Ran(0 if was_loaded else 3, "")
            case "print":
                return Ran(0, "\tpid = 7\n") if was_loaded else Ran(113, "Could not find service")
        return Ran(0, "")


def services(
    manager: ServiceManager,
    runner: RecordingRunner,
    caller: Caller = ADA,
    *,
    is_managed: bool = True,
) -> Services:
    folder = Path("/Users/ada/rack")
    return Services(manager, caller, runner, is_managed=is_managed, program=PROGRAM, folder=folder)


def test_install_again_and_uninstall_on_macos(tmp_path: Path) -> None:
    runner = RecordingRunner(FakeLaunchd())
    mac = services(Launchd(tmp_path), runner)
    path = tmp_path / "io.tbcluster.agent.plist"
    state = mac.install(mac.service(ServiceKind.AGENT))
    assert (state.is_installed, state.is_running, state.pid) == (True, True, 7)
    assert state.definition == str(path)
    assert state.log == "tail -n 50 /Users/ada/Library/Logs/tbcluster-agent.log"
    assert [command[1] for command in runner.commands] == [
        "bootout",
        "print",
        "enable",
        "bootstrap",
        "print",
    ]
    mac.install(mac.service(ServiceKind.AGENT, ["--models", "x"]))
    found = plistlib.loads(path.read_bytes())
    assert found["ProgramArguments"] == [*PROGRAM, "agent", "--models", "x"]
    state = mac.uninstall(ServiceKind.AGENT)
    assert (state.is_installed, state.is_running, state.pid) == (False, False, None)
    assert not list(tmp_path.iterdir())
    assert mac.uninstall(ServiceKind.AGENT) == state


def test_install_and_uninstall_on_linux(tmp_path: Path) -> None:
    runner = RecordingRunner(watched=tmp_path)
    linux = services(Systemd(tmp_path), runner)
    state = linux.install(linux.service(ServiceKind.SERVE, ["org/model"], 100.0))
    assert [command[1] for command in runner.commands] == [
        "daemon-reload",
        "enable",
        "restart",
        "show",
    ]
    assert runner.files[0] == ["tbcluster-serve.service"]
    assert "TimeoutStopSec=115" in (tmp_path / "tbcluster-serve.service").read_text()
    assert (state.is_installed, state.is_running) == (True, False)
    assert state.log == "journalctl -u tbcluster-serve.service -n 50"
    linux.uninstall(ServiceKind.SERVE)
    assert runner.files[-1] == []


def test_relative_arguments_mean_what_they_meant() -> None:
    linux = services(Systemd(), RecordingRunner())
    assert linux.service(ServiceKind.AGENT).working_folder == Path("/Users/ada")
    given = linux.service(ServiceKind.AGENT, ["--rack", "rack.toml"])
    assert given.working_folder == Path("/Users/ada/rack")


@pytest.mark.parametrize("manager", [Launchd(), Systemd()])
def test_everything_is_shown_before(manager: ServiceManager) -> None:
    runner = RecordingRunner()
    shown = services(manager, runner, is_managed=False)
    service = shown.service(ServiceKind.SERVE, ["/Volumes/ssd/model"])
    text = shown.shown_install(service)
    assert manager.definition(service).decode() in text
    for step in manager.install(service):
        assert str(step) in text
    for step in manager.uninstall(ServiceKind.SERVE):
        assert str(step) in shown.shown_uninstall(ServiceKind.SERVE)
    assert ("Note: /Volumes/ssd/model lies in /Volumes" in text) == isinstance(manager, Launchd)
    assert not runner.commands


def test_without_root_the_exact_line_is_said(tmp_path: Path) -> None:
    runner = RecordingRunner()
    caller = replace(ADA, is_root=False)
    mac = services(Launchd(tmp_path), runner, caller)
    with pytest.raises(ServiceError) as raised:
        mac.install(mac.service(ServiceKind.SERVE, ["a b", "--port", "1"]))
    line = str(raised.value).splitlines()[-1]
    assert shlex.split(line) == [
        *("sudo", *PROGRAM, "service", "install", "serve", "a b", "--port", "1")
    ]
    with pytest.raises(ServiceError) as raised:
        mac.uninstall(ServiceKind.AGENT)
    assert str(raised.value).endswith("sudo '/opt/my tools/tbcluster' service uninstall agent")
    assert not runner.commands
    assert not list(tmp_path.iterdir())


def test_a_folder_of_its_own_is_part_of_the_line() -> None:
    caller = replace(ADA, is_root=False, state_folder=Path("/my state"))
    mac = services(Launchd(), RecordingRunner(), caller)
    with pytest.raises(ServiceError, match="sudo env 'TBCLUSTER_HOME=/my state' "):
        mac.install(mac.service(ServiceKind.AGENT))


def test_sudo_is_asked_in_the_terminal(tmp_path: Path) -> None:
    runner = RecordingRunner()
    mac = services(Launchd(tmp_path), runner, replace(ADA, is_root=False))
    agent = mac.service(ServiceKind.AGENT, ["--models", "x"])
    mac.install_through_sudo(agent)
    install, agreed = ("sudo", *PROGRAM, "service", "install"), ("--yes", "--quiet")
    assert runner.in_terminal == [(*install, *agreed, "agent", "--models", "x")]
    runner.terminal_status = 1
    with pytest.raises(
        ServiceError, match=r"not installed: run\n  sudo .* install agent --models x"
    ):
        mac.install_through_sudo(agent)
    assert not list(tmp_path.iterdir())
    root = services(Launchd(tmp_path), RecordingRunner(FakeLaunchd()))
    assert root.install_through_sudo(agent).is_running


def test_without_a_service_manager(tmp_path: Path) -> None:
    runner = RecordingRunner()
    linux = services(Systemd(tmp_path), runner, is_managed=False)
    agent = linux.service(ServiceKind.AGENT)
    for doing in (
        lambda: linux.install(agent),
        lambda: linux.install_through_sudo(agent),
        lambda: linux.uninstall(ServiceKind.AGENT),
        lambda: linux.state(ServiceKind.AGENT),
    ):
        with pytest.raises(
            ServiceError, match="systemd does not run here: start `tbcluster agent`"
        ):
            doing()
    assert not runner.commands
    assert not list(tmp_path.iterdir())


def test_a_failed_start_is_told(tmp_path: Path) -> None:
    def answer(command: tuple[str, ...]) -> Ran:
        return Ran(1, "Unit is masked.") if command[1] == "restart" else Ran(0, "")

    linux = services(Systemd(tmp_path), RecordingRunner(answer))
    with pytest.raises(ServiceError, match=r"systemctl restart .*\(exit 1\): Unit is masked\."):
        linux.install(linux.service(ServiceKind.AGENT))
