"""Property lists and unit files: what was meant is what they say."""

import configparser
import plistlib
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.service.definition import LastSeen, Service, ServiceKind, ServiceManager
from tbcluster.cluster.service.launchd import Launchd
from tbcluster.cluster.service.steps import Remove, Run, WaitUntilFails, Write
from tbcluster.cluster.service.systemd import Systemd
from tbcluster.errors import ServiceError

AGENT = Service(
    kind=ServiceKind.AGENT,
    program=("/opt/tb cluster/bin/tbcluster", "agent", "--models", "/Volumes/Größe 1/models"),
    user="ada",
    home=Path("/Users/ada"),
    state_folder=Path("/Users/ada/Library/Application Support/tbcluster"),
    working_folder=Path("/Users/ada/my rack"),
    stop_s=19.5,
)
SERVE = replace(
    AGENT,
    kind=ServiceKind.SERVE,
    program=("/opt/tb/tbcluster", "serve", "org/model", "--port", "1"),
)
PRINTED = """\
system/io.tbcluster.agent = {
\tactive count = 1
\tpath = /Library/LaunchDaemons/io.tbcluster.agent.plist
\ttype = LaunchDaemon
\tstate = running

\tprogram = /opt/tbcluster/bin/tbcluster
\targuments = {
\t\t/opt/tbcluster/bin/tbcluster
\t\tagent
\t}

\tdefault environment = {
\t\tPATH => /usr/bin:/bin:/usr/sbin:/sbin
\t}

\tdomain = system
\tusername = ada
\truns = 2
\tpid = 5071
\timmediate reason = speculative
\tlast exit code = (never exited)

\tendpoints = {
\t\tpid = 1
\t\tlast exit code = 9
\t}

\tspawn type = interactive (4)
}
"""


def unit_of(service: Service) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(Systemd().definition(service).decode())
    return parsed


def words(line: str) -> list[str]:
    """The words of a line as systemd reads them: in double quotes, with backslashes and %%."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
    return [re.sub(r"\\(.)", r"\1", word).replace("%%", "%") for word in found]


def test_the_property_list() -> None:
    found = plistlib.loads(Launchd().definition(AGENT))
    log = "/Users/ada/Library/Logs/tbcluster-agent.log"
    assert found == {
        "Label": "io.tbcluster.agent",
        "ProgramArguments": list(AGENT.program),
        "UserName": "ada",
        "EnvironmentVariables": {"HOME": "/Users/ada", "TBCLUSTER_HOME": str(AGENT.state_folder)},
        "WorkingDirectory": "/Users/ada/my rack",
        "RunAtLoad": True,
        "KeepAlive": True,
        "ProcessType": "Interactive",
        "ThrottleInterval": 5,
        "ExitTimeOut": 20,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }


def test_the_unit_file() -> None:
    unit = unit_of(AGENT)
    service = unit["Service"]
    assert words(service["ExecStart"]) == [f":{AGENT.program[0]}", *AGENT.program[1:]]
    assert words(service["Environment"]) == [
        "HOME=/Users/ada",
        f"TBCLUSTER_HOME={AGENT.state_folder}",
    ]
    assert service["WorkingDirectory"] == "/Users/ada/my rack"
    assert service["User"] == "ada"
    assert (service["Restart"], service["RestartSec"]) == ("always", "1")
    assert (service["KillMode"], service["TimeoutStopSec"]) == ("mixed", "20")
    assert service["NoNewPrivileges"] == "yes"
    # Agent and coordinator meet at sockets in the shared /tmp.
    assert "PrivateTmp" not in service
    assert unit["Unit"]["After"] == "network-online.target"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Install"]["WantedBy"] == "multi-user.target"


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc",), exclude_characters="\ufffe\uffff"),
    min_size=1,
    max_size=20,
).map(lambda text: f"{text}.")
paths = texts.map(lambda text: f"/{text}")


@given(paths, st.lists(texts, max_size=3), paths, texts)
def test_any_text_survives_both(path: str, arguments: list[str], folder: str, user: str) -> None:
    program = (f"{path}/tbcluster", *arguments)
    service = replace(
        AGENT, program=program, state_folder=Path(folder), working_folder=Path(folder), user=user
    )
    service.check()
    found = plistlib.loads(Launchd().definition(service))
    assert found["ProgramArguments"] == list(program)
    assert found["WorkingDirectory"] == str(Path(folder))
    assert found["UserName"] == user
    unit = unit_of(service)["Service"]
    command = words(unit["ExecStart"])
    assert command[0].startswith(":/")
    assert command[-len(program) + 1 :] == [*program[1:]] or len(program) == 1
    # systemd takes no quotes in the executable's own path.
    has_quotes = any(mark in path for mark in "'\"\\")
    assert [command[0][1:], *command[1:]] == [*(["/usr/bin/env"] if has_quotes else []), *program]
    assert words(unit["Environment"])[1] == f"TBCLUSTER_HOME={Path(folder)}"


@pytest.mark.parametrize("text", ["/a\nb", "/a\x00", "/a\udcff", "/a ", "/a\\", "/a\x7f"])
def test_what_no_definition_can_hold_is_refused(text: str) -> None:
    for changed in (
        replace(AGENT, program=(text, "agent")),
        replace(AGENT, program=("/a", text)),
        replace(AGENT, state_folder=Path(text)),
        replace(AGENT, working_folder=Path(text)),
    ):
        with pytest.raises(ServiceError, match="cannot be part of a service"):
            changed.check()


def test_paths_are_absolute() -> None:
    with pytest.raises(ServiceError, match="'tbcluster' is no absolute path"):
        replace(AGENT, program=("tbcluster", "agent")).check()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", ["tbcluster", 'o\'brien "1" 50% $HOME'])
def test_systemd_accepts_the_unit(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    program = folder / "tbcluster"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = tmp_path / "units"
    units.mkdir()
    service = replace(SERVE, program=(str(program), "serve", "$x %n \"y\" 'z' \\ é"))
    service = replace(service, working_folder=folder, state_folder=folder, user="root")
    (step, *_) = Systemd(units).install(service)
    assert isinstance(step, Write)
    step.path.write_bytes(step.content)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(step.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Other units of this machine may be at fault.
    assert step.path.name not in done.stderr
    # That it finds faults at all:
    step.path.write_bytes(step.content.replace(b"KillMode=mixed", b"KillMode=never"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(step.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert step.path.name in done.stderr


def test_launchd_is_asked_to_forget_the_old_definition_first() -> None:
    path = Path("/Library/LaunchDaemons/io.tbcluster.agent.plist")
    target = "system/io.tbcluster.agent"
    assert Launchd().install(AGENT) == (
        Write(path, Launchd().definition(AGENT)),
        Run(("launchctl", "bootout", target), may_fail=True),
        WaitUntilFails(("launchctl", "print", target), 300),
        Run(("launchctl", "enable", target)),
        Run(("launchctl", "bootstrap", "system", str(path))),
    )
    assert Launchd().uninstall(ServiceKind.AGENT) == (
        Run(("launchctl", "bootout", target), may_fail=True),
        WaitUntilFails(("launchctl", "print", target), 300),
        Remove(path),
    )


def test_systemd_reads_the_new_definition_before_it_starts_it() -> None:
    path = Path("/etc/systemd/system/tbcluster-serve.service")
    assert Systemd().install(SERVE) == (
        Write(path, Systemd().definition(SERVE)),
        Run(("systemctl", "daemon-reload")),
        Run(("systemctl", "enable", "tbcluster-serve.service")),
        Run(("systemctl", "restart", "tbcluster-serve.service")),
    )
    assert Systemd().uninstall(ServiceKind.SERVE) == (
        Run(("systemctl", "disable", "--now", "tbcluster-serve.service"), may_fail=True),
        Remove(path),
        Run(("systemctl", "daemon-reload")),
        Run(("systemctl", "reset-failed", "tbcluster-serve.service"), may_fail=True),
    )


def test_steps_are_shown_as_they_would_be_typed() -> None:
    assert str(Remove(Path("/a b"))) == "rm -f '/a b'"
    assert str(Run(("launchctl", "enable", "x y"))) == "launchctl enable 'x y'"
    assert str(WaitUntilFails(("a", "b"), 3)).startswith("while a b >/dev/null")
    assert str(Write(Path("/a b"), b"")) == "write '/a b', as above"


@pytest.mark.parametrize(
    ("manager", "output", "seen"),
    [
        (Launchd(), PRINTED, LastSeen(pid=5071)),
        (Launchd(), PRINTED.replace("(never exited)", "78: EX_CONFIG"), LastSeen(5071, 78)),
        (Launchd(), PRINTED.replace("\tpid = 5071\n", ""), LastSeen()),
        (Launchd(), "\tlast exit code = 1\n\tstate = spawn scheduled\n", LastSeen(None, 1)),
        (Launchd(), "", LastSeen()),
        (
            Systemd(),
            "MainPID=71\nExecMainStatus=0\nExecMainExitTimestampMonotonic=0\n",
            LastSeen(71),
        ),
        (
            Systemd(),
            "MainPID=0\nExecMainStatus=1\nExecMainExitTimestampMonotonic=12345\n",
            LastSeen(None, 1),
        ),
        (Systemd(), "MainPID=0\nExecMainStatus=0\nExecMainExitTimestampMonotonic=0", LastSeen()),
        (Systemd(), "MainPID=\nExecMainStatus=x\n", LastSeen()),
    ],
)
def test_what_the_managers_say(manager: ServiceManager, output: str, seen: LastSeen) -> None:
    assert manager.answer(output) == seen


@given(st.text(alphabet="pid=last exit code\t\n()0123456789-", max_size=60))
def test_no_answer_is_an_error(output: str) -> None:
    Launchd().answer(output)
    Systemd().answer(output)


def test_folders_that_macos_closes_are_named() -> None:
    home = AGENT.home
    (note,) = Launchd().notes(AGENT)
    assert note.startswith("/Volumes/Größe 1/models lies in /Volumes, which macOS may close")
    service = replace(AGENT, program=(str(home / "Documents/venv/tbcluster"), "agent"))
    (note,) = Launchd().notes(service)
    assert "/Users/ada/Documents/venv/tbcluster lies in /Users/ada/Documents" in note
    assert not Launchd().notes(SERVE)
    assert not Systemd().notes(AGENT)
