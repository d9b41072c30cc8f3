"""Asking for the state of the rack: of the coordinator that runs, or by being one for a moment."""

import socket
from pathlib import Path

import pytest

from tbcluster.cluster.agent.lock import AgentLock, runs_agent
from tbcluster.cluster.rack import ask
from tbcluster.cluster.rack.ask import ask_rack, ask_running, gathered, why_not_drained
from tbcluster.cluster.trust import TrustFolder
from tbcluster.errors import RackError
from tbcluster.machine import NodeState, Serving
from tbcluster.transport.curve import new_keys
from tbcluster.wire.rack import Goodbye, Welcome
from tests.doubles.agent import joined_folder
from tests.doubles.control_planes import RackOfScripts
from tests.doubles.nodes import VERSION, hello
from tests.doubles.scripted_agent import ScriptedAgent
from tests.doubles.trusted import TrustedHead, listens
from tests.doubles.waiting import wait_until


def test_the_coordinator_that_runs_is_asked(tmp_path: Path) -> None:
    with RackOfScripts(tmp_path) as rack:
        rack.bring_up("one")
        rack.plane.describe = lambda: Serving("/model", "loading", {})
        view = ask_rack(rack.trusted.folder)
        assert view.cluster_id == rack.head.cluster_id
        assert (view.serving, view.serving_state) == ("/model", "loading")
        assert {node.name: node.state for node in view.nodes} == {
            "head": NodeState.OFFLINE,
            "one": NodeState.ONLINE,
        }
        assert not runs_agent(rack.trusted.folder.path)
        assert rack.states()["one"] == "online"


def test_where_none_runs_this_process_is_one_for_a_moment(tmp_path: Path) -> None:
    head = TrustedHead(tmp_path)
    view = ask_rack(head.folder, wait_s=60.0)
    assert (view.cluster_id, view.tbcluster_version) == (head.head.cluster_id, VERSION)
    (node,) = view.nodes
    assert (node.name, node.is_head, node.state) == ("head", True, NodeState.ONLINE)
    assert node.machine is not None
    assert node.machine.memory_bytes > 0
    assert view.serving is None
    wait_until(lambda: not listens(head.head.control_port), "the port is free again")
    assert not runs_agent(head.folder.path)


def test_what_runs_is_asked_whether_a_node_is_needed(tmp_path: Path) -> None:
    with RackOfScripts(tmp_path) as rack:
        folder = rack.trusted.folder
        view = ask_running(folder)
        assert view is not None
        assert [node.name for node in view.nodes] == ["head"]
        assert why_not_drained(folder, "head") is None
        rack.plane.may_drain = lambda name: f"{name} is needed"
        assert why_not_drained(folder, "head") == "head is needed"
    wait_until(lambda: ask_running(folder) is None, "nobody can be asked")
    assert why_not_drained(folder, "head") is None
    assert not runs_agent(folder.path)


def test_a_look_at_the_rack_leaves_what_a_coordinator_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that crashed may be about to come back for it."""
    monkeypatch.setattr(ask, "START_S", 0.0)
    head = TrustedHead(tmp_path)
    lock = AgentLock(tmp_path)  # so that no agent is started here
    keys = new_keys()
    head.members.admit(head.members.invite(60.0), keys.public, "one")
    with ScriptedAgent(head.head, keys) as agent:
        with gathered(head.folder, wait_s=0.0):
            agent.say(hello())
            agent.hear(Welcome)
        assert agent.hear(Goodbye) == Goodbye(keeps_workers=True)
    lock.release()


def test_whoever_else_has_the_port_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "ANSWER_S", 0.3)
    head = TrustedHead(tmp_path)
    port = head.head.control_port
    taken = pytest.raises(RackError, match=f"port {port} is taken and does not answer")
    with socket.create_server(("127.0.0.1", port)), taken:
        ask_rack(head.folder)
    assert not runs_agent(head.folder.path)


def test_a_coordinator_of_another_cluster_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "ANSWER_S", 0.3)
    with RackOfScripts(tmp_path / "other") as other:
        mine = TrustFolder(tmp_path / "mine")
        mine.init("mine", "head", other.head.control_port)
        with pytest.raises(RackError, match="does not answer as this cluster's coordinator"):
            ask_rack(mine)


def test_an_answer_of_another_version_says_so() -> None:
    with pytest.raises(RackError, match=r"is of another version of tbcluster: start it again"):
        ask._understood(b"\xc1")


def test_only_the_head_node_asks(tmp_path: Path) -> None:
    with pytest.raises(RackError, match="this machine is node 'mini2' of 'rack', not its head"):
        ask_rack(joined_folder(tmp_path))
