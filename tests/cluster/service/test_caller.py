"""Who asks for a service, and which program they run."""

import os
import pwd
import sys
from pathlib import Path

import pytest

from tbcluster.cluster.service.caller import running_program, this_caller
from tbcluster.errors import ServiceError

# An account that every system has, with a home of its own.
DAEMON = pwd.getpwnam("daemon")


def test_with_sudo_it_is_who_called_sudo() -> None:
    caller = this_caller({"SUDO_USER": "daemon", "HOME": "/root"}, user_id=0, platform="linux")
    assert caller.is_root
    assert caller.user == "daemon"
    assert caller.home == Path(DAEMON.pw_dir)
    assert caller.state_folder == caller.default_folder == caller.home / ".config" / "tbcluster"


def test_without_sudo_it_is_who_runs_this() -> None:
    caller = this_caller({"SUDO_USER": "root"}, user_id=DAEMON.pw_uid, platform="darwin")
    assert not caller.is_root
    assert caller.user == "daemon"
    folder = Path(DAEMON.pw_dir) / "Library" / "Application Support" / "tbcluster"
    assert caller.state_folder == folder


def test_a_folder_of_their_own(tmp_path: Path) -> None:
    environ = {"TBCLUSTER_HOME": str(tmp_path), "SUDO_USER": "daemon"}
    caller = this_caller(environ, user_id=0, platform="linux")
    assert caller.state_folder == tmp_path
    assert caller.default_folder != tmp_path


def test_unknown_users() -> None:
    with pytest.raises(ServiceError, match="knows no user no-such-user"):
        this_caller({"SUDO_USER": "no-such-user"}, user_id=0)
    with pytest.raises(ServiceError, match="knows no user 3999999999"):
        this_caller({}, user_id=3_999_999_999)


def test_the_command_that_runs_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "venv" / "tbcluster"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    link = tmp_path / "tbcluster"
    link.symlink_to(command)
    monkeypatch.chdir(tmp_path)
    assert running_program("venv/../venv/tbcluster") == (str(command),)
    assert running_program("./tbcluster") == (str(link),)


@pytest.mark.parametrize("argv0", ["/x/site-packages/tbcluster/__main__.py", "pytest", "", "/tmp"])
def test_else_the_module(argv0: str) -> None:
    assert running_program(argv0) == (sys.executable, "-P", "-m", "tbcluster")


def test_a_relative_python_is_made_absolute() -> None:
    assert running_program("pytest", "bin/python")[0] == os.path.join(os.getcwd(), "bin/python")
