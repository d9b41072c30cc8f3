"""`tbcluster init`, `invite` and `join`, each machine with a folder of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tbcluster.cli.invite import duration_s, lifetime
from tbcluster.cli.main import app
from tbcluster.cluster.agent.lock import AgentLock
from tbcluster.cluster.service import SYSTEMD_RUNS, Services
from tbcluster.cluster.service.caller import Caller
from tbcluster.cluster.service.systemd import Systemd
from tbcluster.cluster.trust import JoinToken, MemberFile, Membership, TrustFolder
from tests.doubles.commands import run, run_here
from tests.doubles.service_runner import RecordingRunner
from tests.doubles.trusted import free_control_port


def on(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run_here(*arguments, env={"TBCLUSTER_HOME": str(folder)}, stdin=stdin)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where the folders of all nodes are."""
    return tmp_path


@pytest.fixture
def made(state: Path) -> dict[str, Any]:
    """What `init --json` says of the cluster of these tests."""
    port = str(free_control_port())
    arguments = ("--name", "lab", "--node-name", "studio", "--port", port, "--json")
    done = on(state / "head", "init", *arguments)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def inviting(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`tbcluster invite --wait`, ended by the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tbcluster", "invite", "--wait", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TBCLUSTER_HOME": str(folder)},
        # A shell's background jobs ignore Ctrl-C, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def enroll(state: Path, made: dict[str, Any]) -> None:
    """Make `mini` a node, as far as it knows itself."""
    head = TrustFolder(state / "head").head()
    assert head is not None
    addresses, port = ("127.0.0.1",), made["control_port"]
    membership = Membership(
        head.cluster_id, head.cluster_name, "mini", head.keys.public, addresses, port
    )
    TrustFolder(state / "mini").join(membership)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_init_makes_a_cluster_once(state: Path, made: dict[str, Any]) -> None:
    assert made["cluster_name"] == "lab"
    assert made["node_name"] == "studio"
    assert made["folder"] == str(state / "head")
    token = JoinToken.decode(made["token"])
    assert token.cluster_id == made["cluster_id"]
    assert (token.port, token.expires) == (made["control_port"], made["expires"])
    head = TrustFolder(state / "head")
    assert head.node().node_id == made["node_id"]
    again = on(state / "head", "init")
    assert again.returncode == 1
    assert f"'lab' ({made['cluster_id']})" in again.stderr
    assert "Traceback" not in again.stderr
    # Only who has a token can join.
    assert MemberFile(head).open_invitations() == 1


def test_a_person_is_told_what_to_type(tmp_path: Path) -> None:
    done = run("init", env={"TBCLUSTER_HOME": str(tmp_path)})
    # The token alone goes to standard output.
    assert re.fullmatch(r"tbj-[\w-]+\n", done.stdout)
    for command in ("tbcluster join", "tbcluster invite", "tbcluster serve MODEL"):
        assert command in done.stderr
    assert done.stdout.strip() not in done.stderr


def test_machines_join_while_the_head_node_waits(state: Path, made: dict[str, Any]) -> None:
    with inviting(state / "head", "--count", "1", "--valid", "10m") as process:
        token = line(process)
        joined = on(state / "mini", "join", "-", "--name", "mini", stdin=f"{token}\n")
        assert joined.returncode == 0, joined.stderr
        assert f"mini, a node of cluster lab ({made['cluster_id']})" in joined.stderr
        assert "tbcluster agent" in joined.stderr
        again = on(state / "mini", "join", token)
        assert again.returncode == 0
        assert "already" in again.stderr
        late = on(state / "late", "join", token)
        assert late.returncode == 1
        assert "another machine already" in late.stderr
        assert "Traceback" not in late.stderr
        # The token that `init` made: now nobody is awaited any more.
        other = on(state / "other", "join", made["token"], "--name", "mini")
        assert "mini-2, a node" in other.stderr
        assert "(mini was taken; `tbcluster nodes rename` on the head node" in other.stderr
        assert process.wait(60) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    assert "mini has joined" in said
    assert "mini-2 has joined" in said
    assert "Traceback" not in said
    known = TrustFolder(state / "mini").membership()
    assert known is not None
    assert (known.cluster_id, known.node_name) == (made["cluster_id"], "mini")


def test_a_machine_belongs_to_one_cluster(state: Path, made: dict[str, Any]) -> None:
    enroll(state, made)
    folder = state / "of another"
    foreign = on(folder, "init", "--name", "elsewhere", "--json")
    token = json.loads(foreign.stdout)["token"]
    refused = on(state / "mini", "join", token, "--timeout", "0")
    assert refused.returncode == 1
    assert "lab" in refused.stderr
    assert "--force" in refused.stderr
    # Nobody listens there: it stays where it is.
    forced = on(state / "mini", "join", token, "--force", "--timeout", "0")
    assert "did not answer" in forced.stderr
    known = TrustFolder(state / "mini").membership()
    assert known is not None
    assert known.cluster_id == made["cluster_id"]
    head = on(state / "head", "join", token, "--force", "--timeout", "0")
    assert "head node of cluster 'lab'" in head.stderr


def test_an_agent_that_runs_has_to_be_started_again(state: Path, made: dict[str, Any]) -> None:
    enroll(state, made)
    lock = AgentLock(state / "mini")
    with inviting(state / "head", "--count", "1") as process:
        joined = on(state / "mini", "join", line(process), "--new-keys")
    lock.release()
    assert joined.returncode == 0, joined.stderr
    assert "still has the old keys" in joined.stderr
    assert "Next:" not in joined.stderr


def test_tokens_for_several_machines(state: Path, made: dict[str, Any]) -> None:
    head = state / "head"
    many = json.loads(on(head, "invite", "--count", "3", "--json").stdout)
    assert len(set(many["tokens"])) == 3
    assert {JoinToken.decode(text).cluster_id for text in many["tokens"]} == {made["cluster_id"]}
    members = MemberFile(TrustFolder(head))
    assert members.open_invitations() == 1 + 3
    said = on(head, "invite").stderr
    assert "`tbcluster serve` or `tbcluster invite --wait` has to run while they join" in said
    assert on(head, "invite", "--cancel").returncode == 0
    assert members.open_invitations() == 0
    enroll(state, made)
    elsewhere = on(state / "mini", "invite")
    assert elsewhere.returncode == 1
    assert "node 'mini' of 'lab', not its head" in elsewhere.stderr


def test_a_revoked_node_comes_back_under_its_name(state: Path, made: dict[str, Any]) -> None:
    with inviting(state / "head") as process:
        line(process)
        joined = on(state / "mini", "join", made["token"], "--name", "kitchen")
        assert "kitchen, a node" in joined.stderr
        assert "taken" not in joined.stderr
        assert on(state / "head", "nodes", "revoke", "kitchen", "--yes").returncode == 0
        token = on(state / "head", "invite").stdout.strip()
        again = on(state / "mini", "join", token, "--new-keys")
        assert "kitchen, a node" in again.stderr
        # The same keys have the name that they had.
        token = on(state / "head", "invite").stdout.strip()
        named = on(state / "mini", "join", token, "--force", "--name", "attic")
        assert "(the head node knows it by this name; `tbcluster nodes rename`" in named.stderr
    members = MemberFile(TrustFolder(state / "head")).nodes()
    assert [one.name for one in members if not one.is_revoked] == ["studio", "kitchen"]


def test_waiting_can_be_interrupted(state: Path, made: dict[str, Any]) -> None:
    members = MemberFile(TrustFolder(state / "head"))
    before = members.open_invitations()
    with inviting(state / "head") as process:
        token = JoinToken.decode(line(process))
        assert token.cluster_id == made["cluster_id"]
        assert process.stderr is not None
        said = process.stderr
        assert any("Waiting for machines" in text for text in iter(said.readline, ""))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
        assert "Traceback" not in said.read()
    assert members.open_invitations() == before + 1


@pytest.mark.parametrize("text", ["", "abc", "tbj-abc", "tbj-" + "A" * 200])
def test_what_is_no_token_is_named(tmp_path: Path, text: str) -> None:
    done = on(tmp_path / "node", "join", "-", stdin=text)
    assert done.returncode == 1
    assert "token" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "node").exists()


@pytest.mark.skipif(SYSTEMD_RUNS.is_dir(), reason="systemd runs here, and would be used")
def test_no_token_is_used_where_no_service_can_be(tmp_path: Path, made: dict[str, Any]) -> None:
    done = on(tmp_path / "node", "join", made["token"], "--service", "--timeout", "0")
    assert done.returncode == 1
    # Before the head node was looked for.
    assert "systemd does not run here" in done.stderr
    assert not (tmp_path / "node").exists()


def test_a_node_gets_its_service_from_the_same_command(
    tmp_path: Path, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = JoinToken.decode(made["token"])
    membership = Membership(token.cluster_id, "lab", "mini", token.server_key, (), token.port)
    TrustFolder(tmp_path).join(membership)
    runner = RecordingRunner()
    caller = Caller("ada", tmp_path, False, tmp_path, tmp_path)
    services = Services(
        Systemd(tmp_path), caller, runner, is_managed=True, program=("/tb",), folder=tmp_path
    )
    monkeypatch.setattr("tbcluster.cluster.service.this_machine", lambda folder: services)
    arguments = ["join", made["token"], "--service"]
    done = CliRunner().invoke(app, arguments, env={"TBCLUSTER_HOME": str(tmp_path)})
    assert done.exception is None
    # Shown first, then sudo asks.
    assert "ExecStart=" in done.stdout
    (asked,) = runner.in_terminal
    assert asked == ("sudo", "/tb", "service", "install", "--yes", "--quiet", "agent")


@pytest.mark.skipif(os.geteuid() != 0, reason="sudo runs as root")
@pytest.mark.parametrize("command", ["init", "agent"])
def test_keys_do_not_become_roots(tmp_path: Path, command: str) -> None:
    env = {"SUDO_UID": "501", "SUDO_USER": "alice", "TBCLUSTER_HOME": "", "HOME": str(tmp_path)}
    done = run(command, env=env)
    assert done.returncode == 1
    assert "without sudo" in done.stderr
    assert "alice" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "seconds", "words"),
    [
        ("90s", 90, "90 seconds"),
        ("1m", 60, "1 minute"),
        ("30m", 1800, "30 minutes"),
        ("24h", 86400, "1 day"),
        ("36h", 129600, "36 hours"),
        (" 7d ", 604800, "7 days"),
    ],
)
def test_durations(text: str, seconds: int, words: str) -> None:
    assert duration_s(text) == seconds
    assert lifetime(seconds) == words


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1.5h", "0m", "31d", "1w", "999999999d"])
def test_durations_are_plain(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"duration|too long"):
        duration_s(text)
