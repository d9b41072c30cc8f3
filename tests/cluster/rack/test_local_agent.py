"""The head node's own agent: one runs, and it ends with whoever started it."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tbcluster.cluster.agent.lock import AgentLock, runs_agent
from tbcluster.cluster.rack import local_agent
from tbcluster.cluster.rack.local_agent import LocalAgent
from tbcluster.cluster.trust import TrustFolder
from tests.doubles.processes import is_alive
from tests.doubles.trusted import TrustedHead
from tests.doubles.waiting import wait_until

PARENT = """
import sys, threading
from pathlib import Path
from tbcluster.cluster.rack.local_agent import LocalAgent
from tbcluster.cluster.trust import TrustFolder
agent = LocalAgent(TrustFolder(Path(sys.argv[1])))
threading.Event().wait()
"""


@pytest.fixture
def folder(tmp_path: Path) -> TrustFolder:
    return TrustedHead(tmp_path).folder


def agents_of(parent: int) -> list[int]:
    """Agents that this process has started, by their ids."""
    children = psutil.Process(parent).children()
    return [child.pid for child in children if "agent" in command_of(child)]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_one_is_started_once_no_other_runs_and_ends_with_it(
    folder: TrustFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_agent, "RESTART_S", 0.02)
    monkeypatch.setattr(local_agent, "GIVE_WAY_S", 0.1)
    looks: list[bool] = []

    def look(path: Path) -> bool:
        looks.append(runs_agent(path))
        return looks[-1]

    monkeypatch.setattr(local_agent, "runs_agent", look)
    other = AgentLock(folder.path)
    with closing(LocalAgent(folder)):
        wait_until(lambda: len(looks) >= 5, "it has looked")
        assert all(looks)
        assert not agents_of(os.getpid())
        other.release()
        wait_until(lambda: runs_agent(folder.path), "it has started one")
        (agent,) = agents_of(os.getpid())
        # Ctrl-C in a terminal is not for it.
        assert os.getpgid(agent) == agent
    assert not is_alive(agent)
    assert not runs_agent(folder.path)


def test_a_service_has_time_to_start_its_own_again(
    folder: TrustFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_agent, "RESTART_S", 0.02)
    looks: list[bool] = []

    def look(path: Path) -> bool:
        looks.append(runs_agent(path))
        return looks[-1]

    monkeypatch.setattr(local_agent, "runs_agent", look)
    other = AgentLock(folder.path)
    with closing(LocalAgent(folder)):
        wait_until(lambda: True in looks, "it has seen the other one")
        other.release()
        wait_until(lambda: looks.count(False) >= 5, "it has looked again and again")
        assert not agents_of(os.getpid())


def test_one_that_cannot_be_started_is_tried_again(
    folder: TrustFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_agent, "RESTART_S", 0.02)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(folder.path / "nothing"))
        agent = LocalAgent(folder)
        wait_until(lambda: "no agent can be started" in caplog.text, "it has failed")
    with closing(agent):
        wait_until(lambda: runs_agent(folder.path), "it has started one")


def test_what_is_closed_at_once_leaves_nothing(folder: TrustFolder) -> None:
    LocalAgent(folder).close()
    assert not agents_of(os.getpid())
    assert not runs_agent(folder.path)


def test_one_that_dies_is_started_again_and_none_outlives_a_parent_that_is_killed(
    folder: TrustFolder,
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder.path)], stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: bool(agents_of(parent.pid)), "an agent is started")
        (first,) = agents_of(parent.pid)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: runs_agent(folder.path), "another one runs")
        (agent,) = agents_of(parent.pid)
        assert agent != first
    finally:
        parent.kill()
        _, said = parent.communicate()
    assert f"ended with status -{int(signal.SIGKILL)}" in said
    wait_until(lambda: not is_alive(agent), "the agent has ended")
    assert not runs_agent(folder.path)
