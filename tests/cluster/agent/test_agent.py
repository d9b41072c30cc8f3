"""The agent as a process, with a coordinator that the tests play, and real stage workers."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
import psutil
import pytest

from tbcluster.cluster.agent import connection, search_notes
from tbcluster.cluster.agent.agent import Agent
from tbcluster.cluster.links.echo import EchoServer
from tbcluster.cluster.links.prober import Prober
from tbcluster.cluster.trust import TrustFolder
from tbcluster.core import StageRange
from tbcluster.machine import InterfaceKind
from tbcluster.transport.control import ControlServer
from tbcluster.transport.curve import Guard, new_keys
from tbcluster.weights.resources import Resource, path_of
from tbcluster.wire.control import Bound, Failed, Loading, Ready, Route, Routed, Routes, StageSpec
from tbcluster.wire.rack import (
    MAX_MESSAGE_BYTES,
    RACK_PROTOCOL,
    AgentBeat,
    FreeWorker,
    FromAgent,
    Goodbye,
    Hello,
    Inspect,
    Inspected,
    Measure,
    Measured,
    Peer,
    Peers,
    RouteWorker,
    StartWorker,
    StopWorker,
    WorkerEnded,
    WorkerStarted,
    decode_from_agent,
)
from tests.doubles.agent import CLUSTER_KEYS, AgentProcess, joined_folder
from tests.doubles.coordinator import CoordinatorDouble
from tests.doubles.processes import is_alive, worker_pids
from tests.doubles.tls_peers import TlsPeer
from tests.doubles.trusted import free_control_port
from tests.doubles.waiting import DEADLINE_S, wait_until

SPEC = StageSpec(0, 2, "", StageRange(0, 1), 1, "tcp://127.0.0.1:*", "")
SHARD = msgspec.structs.replace(SPEC, shard="the first layer")


@dataclass
class Rack:
    """A coordinator and an agent that has found it."""

    coordinator: CoordinatorDouble
    agent: AgentProcess
    path: Path
    public_key: str

    def start(self, worker_id: str, spec: StageSpec = SPEC) -> int:
        """Have a worker started; returns its process."""
        self.coordinator.say(StartWorker(worker_id, spec))
        wait_until(
            lambda: any(isinstance(said, Ready) for said in self.coordinator.of_worker(worker_id)),
            f"{worker_id} is ready",
        )
        started = self.coordinator.all_of(WorkerStarted)
        return next(message.pid for message in started if message.worker_id == worker_id)

    def end_of(self, worker_id: str) -> str:
        """How a worker ended."""
        ends = lambda: [  # noqa: E731
            message.what
            for message in self.coordinator.all_of(WorkerEnded)
            if message.worker_id == worker_id
        ]
        wait_until(lambda: bool(ends()), f"{worker_id} has ended")
        (end,) = ends()
        return end

    def replace_coordinator(self, incarnation: str) -> None:
        """The coordinator dies; another one listens at the same port."""
        port = self.coordinator.port
        self.coordinator.close()
        self.coordinator = CoordinatorDouble(
            CLUSTER_KEYS, [self.public_key], port=port, incarnation=incarnation
        )


class RunningAgent:
    """An agent in a thread of the test's own process."""

    def __init__(self, path: Path) -> None:
        self._agent = Agent(TrustFolder(path))
        self._thread = threading.Thread(target=self._agent.run)

    def say_of_worker(self, news: WorkerEnded) -> None:
        """As if this had happened to one of its workers."""
        self._agent._mailbox.post(lambda: self._agent._say_of_worker(news))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._agent.stop()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()


def make_rack(path: Path, *arguments: str) -> Iterator[Rack]:
    key = joined_folder(path).node().keys.public
    with CoordinatorDouble(CLUSTER_KEYS, [key]) as coordinator:
        joined_folder(path, f"127.0.0.1:{coordinator.port}")
        with AgentProcess(path, *arguments) as agent:
            coordinator.hear(Hello)
            rack = Rack(coordinator, agent, path, key)
            yield rack
        rack.coordinator.close()


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    """One that is as it was after each test."""
    yield from make_rack(tmp_path_factory.mktemp("state"))


@pytest.fixture
def own_rack(tmp_path: Path) -> Iterator[Rack]:
    """One to break."""
    yield from make_rack(tmp_path)


def remembered(path: Path) -> tuple[str, ...]:
    """Where the node in this folder will look first the next time."""
    membership = TrustFolder(path).membership()
    assert membership is not None
    return membership.addresses


def name_in(path: Path) -> str:
    """What the node in this folder is called."""
    membership = TrustFolder(path).membership()
    assert membership is not None
    return membership.node_name


def test_it_says_what_the_machine_is_and_that_it_is_there(rack: Rack) -> None:
    hello = rack.coordinator.hear(Hello)
    assert hello.protocol == RACK_PROTOCOL
    assert hello.tbcluster_version == version("tbcluster")
    assert hello.user_id == os.getuid()
    assert hello.machine.compute is not None
    assert hello.machine.compute.mlx_version == version("mlx")
    assert not hello.machine.is_lan_blocked
    assert Path(hello.run_dir).stat().st_mode & 0o777 == 0o700
    assert rack.coordinator.hear(AgentBeat, 2).workers == ()
    wait_until(
        lambda: rack.coordinator.all_of(AgentBeat)[-1].gauges is not None,
        "its beats say what the machine's gauges do",
    )
    rack.agent.await_line(f"connected to rack at 127.0.0.1:{rack.coordinator.port}, as mini2")


def test_it_says_where_its_weights_can_be_copied_and_who_it_is(rack: Rack, tmp_path: Path) -> None:
    hello = lambda: rack.coordinator.all_of(Hello)[-1]  # noqa: E731
    wait_until(lambda: hello().weights_port > 0, "it has said so")
    peer = TlsPeer.at(tmp_path)
    key = new_keys().public
    met = Peer("another", "mini3", key, 1, (), peer.certificate)
    path = path_of(Resource("org/tiny", "abc", "config.json"))

    def is_answered() -> bool:
        try:
            return peer.get(hello().weights_port, [hello().certificate], path) == (404, b"")
        except OSError:
            return False

    assert not is_answered()
    rack.coordinator.say(Peers((met,)))
    wait_until(is_answered, "the peer is answered")
    rack.coordinator.say(Peers(()))
    wait_until(lambda: not is_answered(), "it is answered no more")


def test_a_second_agent_is_told_who_runs(rack: Rack) -> None:
    with AgentProcess(rack.path) as second:
        assert second.wait() == 1
    assert f"an agent runs already, process {rack.agent.process.pid}," in second.output
    assert len(second.output.splitlines()) == 1


def test_it_looks_at_the_machine_anew(rack: Rack) -> None:
    hello = rack.coordinator.hear(Hello)
    seen = len(rack.coordinator.all_of(Inspected))
    rack.coordinator.say(Inspect())
    again = rack.coordinator.hear(Inspected, seen + 1).machine
    assert again.hostname == hello.machine.hostname
    assert again.compute is not None
    assert again.disk_free_bytes > 0


def test_workers_are_started_routed_and_stopped(rack: Rack) -> None:
    pid = rack.start("stop-me")
    assert is_alive(pid)
    bound, *loading, ready = rack.coordinator.of_worker("stop-me")
    assert isinstance(bound, Bound)
    assert bound.port > 0
    assert loading
    assert all(isinstance(report, Loading) for report in loading)
    assert isinstance(ready, Ready)
    here = Route(f"tcp://127.0.0.1:{bound.port}", rack.public_key)
    rack.coordinator.say(RouteWorker("stop-me", Routes(7, here, here)))
    wait_until(lambda: Routed(7) in rack.coordinator.of_worker("stop-me"), "it is routed")
    named = len(rack.coordinator.all_of(AgentBeat))
    assert rack.coordinator.hear(AgentBeat, named + 2).workers == ("stop-me",)
    rack.coordinator.say(StopWorker("stop-me"))
    assert rack.end_of("stop-me") == "was ended: the coordinator said so"
    assert not is_alive(pid)


def test_a_worker_that_is_killed_is_told(rack: Rack) -> None:
    pid = rack.start("kill-me")
    os.kill(pid, signal.SIGKILL)
    assert rack.end_of("kill-me") == "was killed by signal 9"
    named = len(rack.coordinator.all_of(AgentBeat))
    assert rack.coordinator.hear(AgentBeat, named + 1).workers == ()


def test_a_model_that_is_not_there_is_told(rack: Rack) -> None:
    rack.coordinator.say(StartWorker("lacks", msgspec.structs.replace(SPEC, model="a/b")))
    assert rack.end_of("lacks") == "ended with status 1"
    said = rack.coordinator.of_worker("lacks")
    (failed,) = [report for report in said if isinstance(report, Failed)]
    assert "'a/b'" in failed.message


def test_neighbours_measure_each_other(rack: Rack) -> None:
    hello, keys = rack.coordinator.hear(Hello), new_keys()
    interfaces = hello.machine.interfaces
    if not any(one.addresses and one.kind is not InterfaceKind.LOOPBACK for one in interfaces):
        pytest.skip("this machine has no address beside loopback")
    echo = EchoServer(keys, [rack.public_key])
    me = Peer("test", "test", keys.public, echo.port, interfaces)
    agent = Peer("agent", "agent", rack.public_key, hello.probe_port, interfaces)
    assert Prober(keys).measure(agent, interfaces) == ()  # a stranger to it so far
    rack.coordinator.say(Peers((me,)))
    rack.coordinator.say(Measure("test"))
    measured = rack.coordinator.hear(Measured)
    assert measured.peer_id == "test"
    assert measured.paths[0].round_trip_us > 0
    assert Prober(keys).measure(agent, interfaces) != ()
    rack.coordinator.say(Measure("nobody"))
    assert rack.coordinator.hear(Measured, 2) == Measured("nobody", ())
    rack.coordinator.say(Peers(()))
    echo.close()


def test_workers_outlive_a_coordinator_that_is_away_for_a_moment(own_rack: Rack) -> None:
    pid = own_rack.start("a")
    own_rack.coordinator.is_deaf = True
    own_rack.agent.await_line("silent for 3 s")
    os.kill(pid, signal.SIGKILL)  # nobody hears of it now
    own_rack.agent.await_line("worker a was killed")
    own_rack.coordinator.is_deaf = False
    own_rack.coordinator.hear(Hello, 2)
    assert own_rack.end_of("a") == "was killed by signal 9"


def test_a_coordinator_that_was_started_again_finds_no_old_workers(own_rack: Rack) -> None:
    pid = own_rack.start("a")
    own_rack.replace_coordinator("second")
    hello = own_rack.coordinator.hear(Hello)
    assert hello.incarnation
    wait_until(lambda: not is_alive(pid), "the old worker has ended")
    again = own_rack.start("a")
    assert again != pid
    assert own_rack.coordinator.hear(WorkerStarted).serial == 1
    assert own_rack.coordinator.all_of(WorkerEnded) == []
    assert worker_pids(own_rack.agent.process.pid) == [again]


def test_a_coordinator_that_was_started_again_gets_the_workers_that_hold_its_shards(
    own_rack: Rack,
) -> None:
    pid = own_rack.start("a", SHARD)
    read = psutil.Process(pid).io_counters().read_chars
    own_rack.replace_coordinator("second")
    # It is asked over the connection that stands again by itself.
    own_rack.coordinator.hear(Hello)
    place = msgspec.structs.replace(SHARD, index=1, epoch=7)
    assert own_rack.start("b", place) == pid
    assert own_rack.coordinator.hear(WorkerStarted).serial == 1
    bound, ready = own_rack.coordinator.of_worker("b")
    assert isinstance(bound, Bound)
    assert isinstance(ready, Ready)
    assert own_rack.coordinator.all_of(WorkerEnded) == []
    assert own_rack.coordinator.of_worker("a") == []
    named = len(own_rack.coordinator.all_of(AgentBeat))
    assert own_rack.coordinator.hear(AgentBeat, named + 2).workers == ("b",)
    # No weight is read again.
    assert psutil.Process(pid).io_counters().read_chars - read < 100_000
    here = Route(f"tcp://127.0.0.1:{bound.port}", own_rack.public_key)
    own_rack.coordinator.say(RouteWorker("b", Routes(3, None, here)))
    wait_until(lambda: Routed(3) in own_rack.coordinator.of_worker("b"), "it is routed")
    own_rack.coordinator.say(FreeWorker("b"))
    assert own_rack.end_of("b") == "was freed for another plan"
    assert is_alive(pid)
    other = msgspec.structs.replace(SHARD, layers=StageRange(0, 2), shard="two layers")
    assert own_rack.start("c", other) != pid
    assert not is_alive(pid)


@pytest.mark.parametrize("keeps_workers", [False, True])
def test_workers_end_with_a_coordinator_that_does_not_say_that_another_follows(
    own_rack: Rack, keeps_workers: bool
) -> None:
    pid = own_rack.start("a", SHARD)
    own_rack.coordinator.say(Goodbye(keeps_workers))
    own_rack.agent.await_line("ended")
    own_rack.replace_coordinator("second")
    own_rack.coordinator.hear(Hello)
    if keeps_workers:
        assert own_rack.start("b", SHARD) == pid
    else:
        wait_until(lambda: not is_alive(pid), "the worker has ended")


def test_nothing_is_left_of_an_agent_that_is_killed(own_rack: Rack) -> None:
    pid = own_rack.start("a")
    run_dir = Path(own_rack.coordinator.hear(Hello).run_dir)
    own_rack.agent.end(signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "the worker has ended")
    wait_until(lambda: not run_dir.exists(), "its sockets are removed")
    with AgentProcess(own_rack.path) as again:
        assert own_rack.coordinator.hear(Hello, 2).incarnation
        assert again.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_all_its_workers(own_rack: Rack, number: int) -> None:
    pid = own_rack.start("a")
    run_dir = Path(own_rack.coordinator.hear(Hello).run_dir)
    assert own_rack.agent.end(number) == 0
    assert not is_alive(pid)
    assert not run_dir.exists()
    assert "Traceback" not in own_rack.agent.output


def test_its_parent_is_outlived_by_what_another_coordinator_can_use(tmp_path: Path) -> None:
    with contextmanager(make_rack)(tmp_path, "--follow-parent") as rack:
        pid, stdin = rack.start("a", SHARD), rack.agent.process.stdin
        assert stdin is not None
        rack.coordinator.close()
        stdin.close()
        rack.replace_coordinator("second")
        rack.coordinator.hear(Hello)
        assert rack.start("b", SHARD) == pid
        rack.coordinator.say(Goodbye())
        assert rack.agent.wait() == 0
        assert not is_alive(pid)


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    joined_folder(tmp_path)
    with AgentProcess(tmp_path, "--follow-parent") as agent:
        wait_until(lambda: (tmp_path / "agent.lock").exists(), "it runs")
        assert agent.process.stdin is not None
        agent.process.stdin.close()
        assert agent.wait() == 0
    assert agent.output == ""


def test_a_refusal_is_logged_once_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "REFUSED_PAUSE_S", 0.2)
    key = joined_folder(tmp_path).node().keys.public
    refusal = "mini2 runs tbcluster 0.1.0, the head node 0.2.0"
    with CoordinatorDouble(CLUSTER_KEYS, [key], refusal=refusal) as coordinator:
        joined_folder(tmp_path, f"127.0.0.1:{coordinator.port}")
        with RunningAgent(tmp_path):
            coordinator.hear(Hello, 3)
            assert coordinator.all_of(AgentBeat) == []
            coordinator.refusal = None
            coordinator.hear(AgentBeat)
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [f"refused: {refusal}"]


def test_nothing_is_said_of_workers_before_a_welcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who listens may be another coordinator, for which the numbers begin anew."""
    monkeypatch.setattr(connection, "GREETING_S", 0.5)
    guard = Guard(CLUSTER_KEYS, {joined_folder(tmp_path).node().keys.public}.__contains__)
    with closing(
        ControlServer("tcp://127.0.0.1:*", guard, max_message_bytes=MAX_MESSAGE_BYTES)
    ) as silent:

        def next_message() -> FromAgent:
            arrival = silent.receive(DEADLINE_S)
            assert arrival is not None, "nothing came"
            return decode_from_agent(arrival.frames[0])

        joined_folder(tmp_path, f"127.0.0.1:{silent.port}")
        running = RunningAgent(tmp_path)
        with running:
            assert isinstance(next_message(), Hello)
            running.say_of_worker(WorkerEnded("a", "was lost"))
            assert isinstance(next_message(), Hello)


def test_workers_end_when_nobody_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LOST_AFTER_S", 1.0)
    monkeypatch.setattr(connection, "ABSENCE_S", 2.0)
    key = joined_folder(tmp_path).node().keys.public
    with CoordinatorDouble(CLUSTER_KEYS, [key]) as coordinator:
        joined_folder(tmp_path, f"127.0.0.1:{coordinator.port}")
        with RunningAgent(tmp_path):
            coordinator.hear(Hello)
            coordinator.say(StartWorker("a", SPEC))
            pid = coordinator.hear(WorkerStarted).pid
            coordinator.is_deaf = True
            wait_until(lambda: not is_alive(pid), "the worker has ended")
            coordinator.is_deaf = False
            assert "the coordinator was away" in coordinator.hear(WorkerEnded).what


def test_it_keeps_the_name_that_the_coordinator_says(tmp_path: Path) -> None:
    key = joined_folder(tmp_path).node().keys.public
    with CoordinatorDouble(CLUSTER_KEYS, [key], node_name="renamed") as coordinator:
        joined_folder(tmp_path, f"127.0.0.1:{coordinator.port}")
        with RunningAgent(tmp_path):
            wait_until(lambda: name_in(tmp_path) == "renamed", "it is renamed")


def test_a_search_in_vain_is_told_and_so_is_a_goodbye(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="tbcluster")
    monkeypatch.setattr(search_notes, "VAIN_AFTER_S", 0.5)
    key = joined_folder(tmp_path).node().keys.public
    port = free_control_port()
    joined_folder(tmp_path, f"127.0.0.1:{port}", port=port)
    looking = f"INFO looking for the head node of rack at 127.0.0.1:{port} and by multicast DNS"
    in_vain = (
        f"WARNING nothing answers at 127.0.0.1:{port}: is `tbcluster serve` running on the head "
        f"node, and does a firewall let port {port} pass?"
    )
    ended = f"INFO the coordinator at 127.0.0.1:{port} ended"

    def lines(wanted: str) -> int:
        return [f"{one.levelname} {one.message}" for one in caplog.records].count(wanted)

    with RunningAgent(tmp_path):
        wait_until(lambda: lines(in_vain) == 1, "it says that nobody is there")
        assert lines(looking) == 1
        with CoordinatorDouble(CLUSTER_KEYS, [key], port=port) as coordinator:
            coordinator.hear(AgentBeat)
            coordinator.say(Goodbye())
            wait_until(lambda: lines(ended) == 1, "it says that the coordinator ended")
            coordinator.hear(Hello, 2)
            wait_until(lambda: lines(looking) == 2, "it has begun another search")


def test_a_folder_of_models_that_is_missing_is_told(tmp_path: Path) -> None:
    joined_folder(tmp_path / "state")
    with AgentProcess(tmp_path / "state", "--models", str(tmp_path / "none")) as agent:
        agent.await_line(f"WARNING {tmp_path}/none does not exist: models are taken from")


def test_a_coordinator_that_comes_later_is_found_by_the_rack_file(tmp_path: Path) -> None:
    """At first somebody else listens there, without the cluster's key."""
    key = joined_folder(tmp_path).node().keys.public
    with CoordinatorDouble(new_keys(), [key]) as impostor:
        port = impostor.port
        (tmp_path / "rack.toml").write_text(
            'name = "rack"\nhead = "head"\n'
            f'[[nodes]]\nname = "head"\naddresses = ["localhost:{port}"]\n'
        )
        with AgentProcess(tmp_path, "--rack", str(tmp_path / "rack.toml")) as agent:
            agent.await_line(f":{port} answers, but does not take this node in")
            impostor.close()
            with CoordinatorDouble(CLUSTER_KEYS, [key], port=port) as coordinator:
                coordinator.hear(AgentBeat)
                assert impostor.said == []
                wait_until(lambda: bool(remembered(tmp_path)), "it is remembered")
                assert remembered(tmp_path) in ((f"127.0.0.1:{port}",), (f"[::1]:{port}",))


def test_a_machine_that_has_not_joined_is_told_how(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as agent:
        assert agent.wait() == 1
    assert "tbcluster join TOKEN" in agent.output
    assert "Traceback" not in agent.output
