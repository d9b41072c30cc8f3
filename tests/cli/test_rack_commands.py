"""`tbcluster doctor`, `nodes`, `status` and `links` as a user runs them, on one machine."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tbcluster.cli.main import app
from tbcluster.cluster.trust import MemberFile, Membership, TrustFolder
from tbcluster.errors import RackError, TrustError, UnknownNodeError
from tbcluster.transport.curve import new_keys
from tests.doubles.commands import run, run_here

Command = Callable[..., subprocess.CompletedProcess[str]]


def free_ports() -> int:
    """A port that is free, and the next one too."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def invoke(folder: Path, *arguments: str) -> Result:
    """Run a command in this process; what it raises is in the result."""
    return CliRunner().invoke(app, arguments, env={"TBCLUSTER_HOME": str(folder)})


@pytest.fixture
def command(head: Path) -> Command:
    """Runs a command on the head node."""
    return lambda *arguments: run_here(*arguments, env={"TBCLUSTER_HOME": str(head)})


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a head node; its only other node is revoked."""
    folder = TrustFolder(tmp_path_factory.mktemp("head"))
    folder.init("studio", "mini1", free_ports())
    members = MemberFile(folder)
    members.admit(members.invite(60.0), new_keys().public, "mini2")
    members.revoke("mini2")
    return folder.path


@pytest.mark.parametrize(
    "arguments",
    [
        ("nodes",),
        ("nodes", "list"),
        ("nodes", "show", "mini1"),
        ("nodes", "rename", "mini1", "mini2"),
        ("nodes", "revoke", "mini1", "--yes"),
        ("drain", "mini1"),
        ("undrain", "mini1"),
        ("status",),
        ("links", "--measure"),
    ],
)
def test_only_the_head_node_can_tell(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    error = invoke(tmp_path, *arguments).exception
    assert isinstance(error, RackError)
    assert "`tbcluster init`" in str(error)
    assert "`tbcluster join TOKEN`" in str(error)
    assert list(tmp_path.iterdir()) == []
    key = new_keys().public
    folder = TrustFolder(tmp_path)
    folder.join(Membership("c0ffee", "studio", "mini2", key, ("192.0.2.1:29640",), 29640))
    error = invoke(tmp_path, *arguments).exception
    assert isinstance(error, RackError)
    assert "node 'mini2' of 'studio'" in str(error)
    assert "head node" in str(error)


def test_the_doctor_looks_at_this_machine_where_there_is_no_cluster(tmp_path: Path) -> None:
    done = run_here("doctor", "--json", env={"TBCLUSTER_HOME": str(tmp_path)})
    assert "Checking this machine alone" in done.stderr
    assert '"nodes"' not in done.stdout
    findings = json.loads(done.stdout)
    assert all(set(entry) == {"name", "node", "status", "detail", "fix"} for entry in findings)
    by_name = {entry["name"]: entry for entry in findings}
    assert by_name["state"]["node"] == socket.gethostname()
    assert by_name["compute"]["status"] == "ok"
    is_well = all(entry["status"] != "failed" for entry in findings)
    assert done.returncode == (0 if is_well else 1)
    # It looks and changes nothing.
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_says_how_one_machine_is(tmp_path: Path) -> None:
    last = invoke(tmp_path, "doctor").stdout.splitlines()[-1]
    assert "wrong with this machine" in last or "wrong here: " in last
    assert "rack" not in last


def test_layers_are_not_placed_without_a_rack(tmp_path: Path) -> None:
    error = invoke(tmp_path, "serve", "--place", "mini2=0-5").exception
    assert isinstance(error, RackError)
    assert f"there is no cluster in {tmp_path}" in str(error)
    assert "leave --place out" in str(error)


def test_the_doctor_of_one_node(tmp_path: Path) -> None:
    done = invoke(tmp_path, "doctor", "--json", "--node", socket.gethostname())
    assert {entry["node"] for entry in json.loads(done.stdout)} == {socket.gethostname()}
    error = invoke(tmp_path, "doctor", "--node", "nobody").exception
    assert isinstance(error, UnknownNodeError)
    assert socket.gethostname() in str(error)


def test_the_head_node_is_online_and_a_revoked_one_is_out(command: Command) -> None:
    listed = json.loads(command("nodes", "--json").stdout)
    states = [(one["name"], one["state"]) for one in listed]
    assert states == [("mini1", "online"), ("mini2", "revoked")]
    assert listed[0]["is_head"]
    assert listed[0]["machine"]["compute"]["mlx_version"]
    assert len(listed[0]["node_id"]) == 16


def test_the_head_node_at_a_glance(head: Path) -> None:
    done = run("status", env={"TBCLUSTER_HOME": str(head)})
    assert "studio" in done.stdout
    assert "1 of 1 nodes online" in done.stdout
    assert "serves nothing: `tbcluster serve MODEL`" in done.stdout
    assert "mini1" in done.stdout
    assert done.returncode == 0


def test_a_node_has_no_link_to_itself(command: Command) -> None:
    assert "fewer than two nodes are online" in command("links").stderr


def test_a_node_that_is_away_keeps_the_rack_from_serving(tmp_path: Path) -> None:
    folder = TrustFolder(tmp_path)
    folder.init("studio", "mini1", free_ports())
    members = MemberFile(folder)
    members.admit(members.invite(60.0), new_keys().public, "mini2")
    done = run_here("doctor", "--no-measure", env={"TBCLUSTER_HOME": str(tmp_path)})
    assert done.returncode == 1
    assert "offline" in done.stdout
    assert "on mini2 (state):\n  tbcluster service install" in done.stdout
    assert "the rack cannot serve" in done.stdout
    # Of the node that is there alone, too: the exit code is the rack's.
    alone = ("doctor", "--no-measure", "--node", "mini1")
    here = run_here(*alone, env={"TBCLUSTER_HOME": str(tmp_path)})
    assert here.returncode == 1
    assert "failures: 0; the rack cannot serve" in here.stdout


def test_nodes_are_renamed_and_revoked(tmp_path: Path) -> None:
    folder = TrustFolder(tmp_path)
    folder.init("studio", "mini1", free_ports())
    members = MemberFile(folder)
    members.admit(members.invite(60.0), new_keys().public, "mini2")
    assert "mini2 is called big now" in invoke(tmp_path, "nodes", "rename", "mini2", "big").stderr
    assert [one.name for one in members.nodes()] == ["mini1", "big"]
    error = invoke(tmp_path, "nodes", "rename", "mini2", "x").exception
    assert isinstance(error, UnknownNodeError)
    # Without an answer nothing happens.
    unanswered = invoke(tmp_path, "nodes", "revoke", "big")
    assert "Revoke big?" in unanswered.stderr
    assert "answer y, or give --yes" in str(unanswered.exception)
    assert [one.is_revoked for one in members.nodes()] == [False, False]
    done = invoke(tmp_path, "nodes", "revoke", "big", "--yes").stderr
    assert "big is revoked" in done
    assert "placed on the other nodes" in done
    again = invoke(tmp_path, "nodes", "revoke", "big")
    assert again.exit_code == 0
    assert "big was revoked already" in again.stderr
    assert "Revoke" not in again.stderr
    assert [one.is_revoked for one in members.nodes()] == [False, True]
    # What cannot be is said before anything is asked.
    refused = invoke(tmp_path, "nodes", "revoke", "mini1")
    assert isinstance(refused.exception, TrustError)
    assert "is the head node" in str(refused.exception)
    unknown = invoke(tmp_path, "nodes", "revoke", "nope")
    assert isinstance(unknown.exception, UnknownNodeError)
    assert "Revoke" not in refused.stderr + unknown.stderr
