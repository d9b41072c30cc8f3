"""The rack as the coordinator uses it: this machine's own agent, and others that are scripts."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tbcluster.cluster.agent.lock import AgentLock, runs_agent
from tbcluster.cluster.rack import rack as rack_module
from tbcluster.cluster.rack.control_plane import ControlPlane
from tbcluster.cluster.rack.link_book import LinkBook
from tbcluster.cluster.rack.rack import Rack, head_of
from tbcluster.cluster.speed_book import known_speeds
from tbcluster.cluster.trust import MemberRing, TrustFolder
from tbcluster.errors import (
    ClusterClosedError,
    PortInUseError,
    RackError,
    UnknownNodeError,
)
from tbcluster.machine import NodeState, NodeView, Serving
from tbcluster.planner.nodes import SpeedSource
from tbcluster.transport.curve import new_keys
from tbcluster.wire.control import CurveKeys
from tbcluster.wire.rack import FromAgent, FromCoordinator, Measure, Measured, Welcome
from tests.doubles.agent import joined_folder
from tests.doubles.nodes import hello
from tests.doubles.scripted_agent import ScriptedAgent
from tests.doubles.trusted import TrustedHead, listens
from tests.doubles.waiting import wait_until

HEAD_BYTES = 64 << 20


def no_paths(message: FromCoordinator) -> FromAgent | None:
    return Measured(message.peer_id, ()) if isinstance(message, Measure) else None


class Bench:
    """A rack that runs, and the keys of its other nodes."""

    def __init__(self, path: Path) -> None:
        self.trusted = TrustedHead(path)
        self.keys: dict[str, CurveKeys] = {}
        # Not in the order of the alphabet.
        for name in ("two", "one"):
            keys = self.keys[name] = new_keys()
            members = self.trusted.members
            members.admit(members.invite(60.0), keys.public, name)
        self.notes: list[str] = []
        self.rack = Rack(self.trusted.folder, memory_bytes=HEAD_BYTES, on_note=self.notes.append)

    def is_up(self, *names: str) -> Callable[[list[NodeView]], bool]:
        return lambda nodes: (
            {node.name for node in nodes if node.state is NodeState.ONLINE} == set(names)
        )

    @contextmanager
    def nodes(self, *names: str) -> Iterator[None]:
        """These are online; when the block is left they have gone."""
        agents = [ScriptedAgent(self.trusted.head, self.keys[name]) for name in names]
        for agent in agents:
            agent.answer = no_paths
            # Without a network: the agent of this machine finds nothing to measure.
            agent.say(hello(os.urandom(4).hex(), interfaces=()))
            agent.hear(Welcome)
        assert self.rack.plane.wait_for(self.is_up("head", *names), 60.0)
        yield
        for agent in agents:
            agent.close()
        assert self.rack.plane.wait_for(self.is_up("head"), 60.0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("head"))
    with made.rack:
        assert made.rack.plane.wait_for(made.is_up("head"), 60.0), "its own agent is there"
        yield made
    wait_until(lambda: not listens(made.trusted.head.control_port), "the port is free")
    assert not runs_agent(made.trusted.folder.path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rack_module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(rack_module, "LOOK_S", 0.02)


@pytest.fixture
def head(tmp_path: Path) -> Iterator[TrustedHead]:
    """Where an agent seems to run already, so that no rack starts one."""
    made = TrustedHead(tmp_path)
    lock = AgentLock(made.folder.path)
    yield made
    lock.release()


# Whose head


def test_a_machine_without_a_cluster_is_no_head(tmp_path: Path) -> None:
    with pytest.raises(RackError, match=r"there is no cluster in .*tbcluster init.*tbcluster join"):
        head_of(TrustFolder(tmp_path))


def test_another_node_is_no_head(tmp_path: Path) -> None:
    folder = joined_folder(tmp_path)
    for call in (lambda: head_of(folder), Rack(folder).start):
        with pytest.raises(RackError, match="node 'mini2' of 'rack', not its head: run this on"):
            call()


def test_the_head_is_known(tmp_path: Path) -> None:
    made = TrustedHead(tmp_path)
    assert head_of(made.folder) == made.head


def test_what_is_not_started_says_so(tmp_path: Path) -> None:
    rack = Rack(TrustedHead(tmp_path).folder)
    for call in (lambda: rack.plane, lambda: rack.places(["head"], is_looped=False), rack.view):
        with pytest.raises(RackError, match="the rack is not running"):
            call()
    rack.close()


# What the nodes are


def test_models_get_no_more_of_this_machine_than_it_was_told(bench: Bench) -> None:
    (head,) = (node for node in bench.rack.plane.nodes() if node.is_head)
    assert head.machine is not None
    assert head.machine.compute is not None
    assert head.machine.compute.working_set_bytes == HEAD_BYTES


def test_an_agent_that_runs_already_has_its_own_limit(head: TrustedHead) -> None:
    notes: list[str] = []
    with Rack(head.folder, memory_bytes=HEAD_BYTES, on_note=notes.append):
        pass
    assert notes == [
        "an agent runs on this machine already: how much memory models may take here is for its "
        "own --memory to say"
    ]


def test_this_machine_is_measured_once(bench: Bench) -> None:
    (head,) = (node for node in bench.rack.plane.nodes() if node.is_head)
    speeds = bench.rack.speeds("float32")
    assert set(speeds) == {head.node_id}
    assert speeds[head.node_id].source is SpeedSource.MEASURED
    assert known_speeds(bench.trusted.folder, [head], "float32") == speeds
    assert bench.rack.speeds("float32") == speeds


# Waiting for nodes


@pytest.mark.usefixtures("impatient")
def test_whoever_is_missing_is_named_until_nobody_waits_any_more(bench: Bench) -> None:
    bench.notes.clear()
    waited: list[str] = []
    with pytest.raises(ClusterClosedError, match="waited for its nodes"):
        bench.rack.await_nodes([], lambda: len(waited) > 3, waited.append)
    assert waited[0] == "waiting for two, one"
    assert bench.notes == ["waiting for two, one"]  # once


@pytest.mark.usefixtures("impatient")
def test_only_those_that_stages_are_placed_on_are_waited_for(bench: Bench) -> None:
    waited: list[str] = []
    with pytest.raises(ClusterClosedError):
        bench.rack.await_nodes(["two"], lambda: bool(waited), waited.append)
    assert waited == ["waiting for two"]
    assert [node.name for node in bench.rack.await_nodes(["head"])] == ["head"]


def test_a_place_on_something_else_than_a_node(bench: Bench) -> None:
    with pytest.raises(UnknownNodeError, match="no node 'mini9': there are head, two, one"):
        bench.rack.await_nodes(["one", "mini9"])


def test_the_head_node_comes_first_and_the_others_by_name_and_none_that_was_revoked(
    bench: Bench,
) -> None:
    members = bench.trusted.members
    members.admit(members.invite(60.0), new_keys().public, "gone")
    members.revoke("gone")
    with pytest.raises(UnknownNodeError, match="no node 'gone'"):
        bench.rack.await_nodes(["gone"])
    with bench.nodes("two", "one"):
        there = bench.rack.await_nodes()
        assert [node.name for node in there] == ["head", "one", "two"]
        assert all(node.machine is not None for node in there)
        places = bench.rack.places(["two", "head"], is_looped=False)
        assert [places.name(stage) for stage in (0, 1)] == ["two", "head"]
        places.close()


def test_a_node_that_is_drained_is_neither_waited_for_nor_given(bench: Bench) -> None:
    members = bench.trusted.members
    is_seen = lambda name, drained: bench.rack.plane.wait_for(  # noqa: E731
        lambda nodes: any(node.name == name and node.is_drained is drained for node in nodes), 30.0
    )
    members.drain("two")
    with bench.nodes("one"):
        assert is_seen("two", True)
        assert [node.name for node in bench.rack.await_nodes()] == ["head", "one"]
        assert [node.name for node in bench.rack.usable()] == ["head", "one"]
        with pytest.raises(RackError, match="two is drained: `tbcluster undrain two`"):
            bench.rack.await_nodes(["head", "two"])
        # It coordinates all the same.
        members.drain("head")
        assert is_seen("head", True)
        assert [node.name for node in bench.rack.await_nodes()] == ["one"]
        assert [node.name for node in bench.rack.usable()] == ["one"]
        members.drain("one")
        with pytest.raises(RackError, match="all nodes are drained"):
            bench.rack.await_nodes()
        for name in ("head", "one", "two"):
            members.undrain(name)
        assert is_seen("head", False)


def test_places_on_something_else_than_a_node(bench: Bench) -> None:
    with pytest.raises(UnknownNodeError, match="no node 'mini9'"):
        bench.rack.places(["head", "mini9"], is_looped=False)


# One coordinator


def test_there_is_one_coordinator(bench: Bench) -> None:
    folder = bench.trusted.folder
    with pytest.raises(PortInUseError, match="a coordinator of rack runs here already"):
        Rack(folder, port_patience_s=0.0).start()
    assert bench.rack.plane.wait_for(lambda nodes: True, 10.0)


@pytest.mark.usefixtures("impatient")
def test_a_port_that_is_taken_for_a_moment_is_waited_for(
    head: TrustedHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[object] = []
    attempt = rack_module._control_plane

    def count(*arguments: Any) -> ControlPlane:
        attempts.append(arguments)
        return attempt(*arguments)

    monkeypatch.setattr(rack_module, "_control_plane", count)
    first = ControlPlane(head.head, MemberRing(head.members), LinkBook())
    rack = Rack(head.folder)
    starting = threading.Thread(target=rack.start)
    starting.start()
    wait_until(lambda: len(attempts) > 1, "it has failed once")
    first.close()
    starting.join()
    try:
        assert rack.view().cluster_id == head.head.cluster_id
    finally:
        rack.close()


@pytest.mark.usefixtures("impatient")
def test_whoever_waits_for_a_port_can_stop(head: TrustedHead) -> None:
    first = ControlPlane(head.head, MemberRing(head.members), LinkBook())
    rack = Rack(head.folder)
    failures: list[BaseException] = []

    def start() -> None:
        try:
            rack.start()
        except PortInUseError as error:
            failures.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    rack.close()
    starting.join(10.0)
    first.close()
    assert len(failures) == 1


def test_what_is_closed_before_it_has_started_leaves_nothing(head: TrustedHead) -> None:
    rack = Rack(head.folder)
    rack.close()
    with pytest.raises(ClusterClosedError, match="while it was starting"):
        rack.start()
    wait_until(lambda: not listens(head.head.control_port), "the port is free")


def test_whoever_waits_for_nodes_learns_that_it_was_closed(head: TrustedHead) -> None:
    head.members.admit(head.members.invite(60.0), new_keys().public, "one")
    rack = Rack(head.folder).start()
    failures: list[BaseException] = []
    is_waiting = threading.Event()

    def wait() -> None:
        try:
            rack.await_nodes([], on_wait=lambda line: is_waiting.set())
        except ClusterClosedError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert is_waiting.wait(60.0)
    rack.close()
    waiting.join(10.0)
    assert len(failures) == 1


def test_what_is_served_is_told_to_those_who_ask(bench: Bench) -> None:
    bench.rack.describe(lambda: Serving("/model", "ready", {"head": ("0: layers 0-3",)}))
    view = bench.rack.view()
    assert (view.serving, view.serving_state) == ("/model", "ready")
    assert {node.name: node.stages for node in view.nodes}["head"] == ("0: layers 0-3",)
    assert view.nodes[0].machine is not None


# Links from one run to the next


def test_links_that_cannot_be_read_are_measured_anew(
    head: TrustedHead, caplog: pytest.LogCaptureFixture
) -> None:
    file = head.folder.path / "links.json"
    file.write_text("garbage")
    file.chmod(0o600)
    with Rack(head.folder) as rack:
        assert rack.view().links == ()
    assert "the links are measured anew" in caplog.text
