"""scripts/first_token against a repository whose setup installs nothing."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

TOOLS = ("git", "curl", "perl", "awk")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
SERVE = f'#!/bin/sh\nexec {sys.executable} -m tbcluster serve "$@"\n'
PARTS = ("clone", "install", "start, load, check", "request to first token", "all, from clone")


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def repository(folder: Path, serve: str) -> Path:
    """A repository of two scripts."""
    scripts = folder / "scripts"
    scripts.mkdir(parents=True)
    for name, text in (("setup", "#!/bin/sh\n"), ("serve", serve)):
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "two scripts")
    return folder


def first_token(repository: Path, place: Path) -> subprocess.CompletedProcess[str]:
    """Run it; what it clones goes into `place`."""
    place.mkdir()
    command = ["bash", str(ROOT / "scripts" / "first_token"), str(repository)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(place)},
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=90)
        except BaseException:
            # With the server that it has started.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_each_part_is_timed_and_nothing_is_left(tmp_path: Path) -> None:
    done = first_token(repository(tmp_path / "source", SERVE), tmp_path / "place")
    assert done.returncode == 0, done.stderr
    assert all(part in done.stdout for part in PARTS)
    assert "the answer: The capital of France is Paris." in done.stdout
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    broken = "#!/bin/sh\necho no such model >&2\nexit 3\n"
    done = first_token(repository(tmp_path / "source", broken), tmp_path / "place")
    assert done.returncode != 0
    assert "no such model" in done.stderr
    assert list((tmp_path / "place").iterdir()) == []
