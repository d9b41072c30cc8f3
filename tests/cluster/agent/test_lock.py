import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tbcluster.cluster.agent.lock import AgentLock, runs_agent
from tbcluster.errors import RackError

HOLDER = """
import sys
from pathlib import Path
from tbcluster.cluster.agent.lock import AgentLock
AgentLock(Path(sys.argv[1])).take_over(Path(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def hold(folder: Path, run_dir: Path) -> "subprocess.Popen[bytes]":
    """A process that holds the lock until its input ends."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(run_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def test_a_second_agent_is_told_who_runs(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert not runs_agent(folder)
    with hold(folder, tmp_path / "run") as holder:
        assert runs_agent(folder)
        with pytest.raises(RackError, match=f"runs already, process {holder.pid}, .*TBCLUSTER_HOM"):
            AgentLock(folder)
        holder.kill()
    assert not runs_agent(folder)
    AgentLock(folder).release()


def test_sockets_of_an_agent_that_was_killed_are_removed(tmp_path: Path) -> None:
    folder, run_dir = tmp_path / "state", tmp_path / "run"
    run_dir.mkdir()
    with hold(folder, run_dir) as holder:
        holder.kill()
    lock = AgentLock(folder)
    mine = tmp_path / "mine"
    mine.mkdir()
    lock.take_over(mine)
    assert not run_dir.exists()
    lock.release()
    # One that ended by itself has removed them.
    again = AgentLock(folder)
    again.take_over(tmp_path / "third")
    again.release()
    assert mine.exists()


def test_the_file_is_private_and_rubbish_in_it_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "agent.lock").write_bytes(b'{"pid": "x"' * 1000)
    lock = AgentLock(tmp_path)
    lock.take_over(tmp_path / "run")
    lock.release()
    os.unlink(tmp_path / "agent.lock")
    AgentLock(tmp_path).release()
    assert stat.S_IMODE((tmp_path / "agent.lock").stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RackError, match=r"file/agent\.lock cannot be written"):
        AgentLock(tmp_path / "file")
