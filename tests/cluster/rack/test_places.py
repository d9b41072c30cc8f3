"""Where stages are, and how their messages reach each other, on a rack of scripted agents."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tbcluster.cluster.discovery.addresses import join_port
from tbcluster.cluster.places import COORDINATOR, make_run_dir
from tbcluster.cluster.rack.places import ANY_PORT, STOP_GRACE_S, RackPlaces
from tbcluster.errors import NoPathError, StageError
from tbcluster.machine import PathMeasurement
from tbcluster.transport.zeromq import ZmqReceiver
from tbcluster.wire.control import Bound, Ready, Report, Route, Routes, StageSpec
from tbcluster.wire.rack import (
    CoordinatorBeat,
    FromAgent,
    FromCoordinator,
    Measure,
    Measured,
    PathsSeen,
    RouteWorker,
    StartWorker,
    StopWorker,
    WorkerEnded,
    WorkerSaid,
    WorkerStarted,
)
from tests.doubles.control_planes import RackOfScripts
from tests.doubles.nodes import hello, measurement, stage_spec
from tests.doubles.scripted_agent import ScriptedAgent
from tests.doubles.waiting import wait_until

ADDRESSES = {"head": "192.0.2.1", "one": "192.0.2.2", "two": "fe80::2%en3"}
SPARE = {"head": "198.51.100.1", "one": "198.51.100.2", "two": "198.51.100.3"}
OTHER_USER = os.getuid() + 1


class Bench:
    """A rack of three, whose links are measured, and places on it."""

    def __init__(self, rack: RackOfScripts) -> None:
        self.rack = rack
        self.agents: dict[str, ScriptedAgent] = {}
        self.made: list[RackPlaces] = []
        self.run_dir = make_run_dir()
        for name in ("one", "two"):
            rack.admit(name)
        self.names = {rack.id(name): name for name in ADDRESSES}

    def bring_up(self, *names: str, user_id: int = os.getuid()) -> None:
        for name in names:
            said = hello(name, run_dir=f"/run/{name}", user_id=user_id)
            self.agents[name] = self.rack.bring_up(name, said, answer=self._measures())
        assert self.rack.plane.wait_for(lambda nodes: True, 10.0)

    def places(self, *names: str, is_looped: bool = False) -> RackPlaces:
        members = {one.node_id: one for one in self.rack.trusted.members.nodes()}
        ids = [self.rack.id(name) for name in names]
        made = RackPlaces(
            self.rack.plane, self.rack.head, ids, members, self.run_dir, is_looped=is_looped
        )
        self.made.append(made)
        return made

    def spec(self, places: RackPlaces, name: str, stage: int, num_stages: int) -> StageSpec:
        """What the agent is told when a stage is launched."""
        number = len(self.agents[name].all_of(StartWorker)) + 1
        places.launch(stage_spec(stage, num_stages), lambda report: None, lambda what: None)
        return self.agents[name].hear(StartWorker, number).spec

    def key(self, name: str) -> str:
        return (
            self.rack.head.keys.public if name == "cluster" else self.rack.member(name).public_key
        )

    def _measures(self) -> Callable[[FromCoordinator], FromAgent | None]:
        def answer(message: FromCoordinator) -> FromAgent | None:
            if not isinstance(message, Measure):
                return None
            return Measured(message.peer_id, self.paths(self.names[message.peer_id]))

        return answer

    def paths(self, name: str) -> tuple[PathMeasurement, ...]:
        return measurement(ADDRESSES[name]), measurement(SPARE[name])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with RackOfScripts(tmp_path) as rack:
        made = Bench(rack)
        yield made
        for places in made.made:
            places.close()
        made.run_dir.rmdir()


# Beside one another


def test_stages_beside_the_coordinator_use_sockets_of_their_machine(bench: Bench) -> None:
    bench.bring_up("head")
    places = bench.places("head", "head")
    first, second = (bench.spec(places, "head", stage, 2) for stage in (0, 1))
    for spec in (first, second):
        assert spec.inbound.startswith("ipc:///run/head/")
        assert spec.run_dir == "/run/head"
    assert first.inbound != second.inbound
    assert places.route(COORDINATOR, 0, 0) == Route(first.inbound)
    assert places.route(0, 1, 0) == Route(second.inbound)
    assert places.results.startswith("ipc://")
    assert places.route(1, COORDINATOR, 0) == Route(places.results)
    assert places.results_guard is None
    socket = Path(places.results.removeprefix("ipc://"))
    with closing(ZmqReceiver(places.results)):
        assert socket.exists()
        places.close()
        assert not socket.exists()


def test_stages_beside_one_another_on_another_node(bench: Bench) -> None:
    bench.bring_up("head", "one")
    places = bench.places("one", "one")
    first, second = (bench.spec(places, "one", stage, 2) for stage in (0, 1))
    assert first.inbound == ANY_PORT
    assert second.inbound.startswith("ipc:///run/one/")
    assert places.route(0, 1, 5001) == Route(second.inbound)
    assert places.is_open(0, 1, Route(second.inbound))


def test_a_coordinator_of_another_user_is_reached_over_loopback(bench: Bench) -> None:
    bench.bring_up("head", user_id=OTHER_USER)
    places = bench.places("head")
    assert bench.spec(places, "head", 0, 1).inbound == ANY_PORT
    assert places.results == ANY_PORT
    expected = Route("tcp://127.0.0.1:5000", bench.key("head"))
    assert places.route(COORDINATOR, 0, 5000) == expected
    assert places.is_open(COORDINATOR, 0, expected)
    assert places.route(0, COORDINATOR, 5001) == Route("tcp://127.0.0.1:5001", bench.key("cluster"))


def test_stages_of_another_user_beside_one_another_still_share_sockets(bench: Bench) -> None:
    bench.bring_up("head", user_id=OTHER_USER)
    places = bench.places("head", "head")
    assert bench.spec(places, "head", 0, 2).inbound == ANY_PORT
    assert bench.spec(places, "head", 1, 2).inbound.startswith("ipc:///run/head/")


# Between machines


def test_stages_on_other_nodes_are_reached_at_their_best_address(bench: Bench) -> None:
    bench.bring_up("head", "one", "two")
    places = bench.places("head", "one", "two")
    for stage, name in enumerate(("head", "one", "two")):
        spec = bench.spec(places, name, stage, 3)
        assert (spec.inbound == ANY_PORT) == (stage > 0)
        assert places.name(stage) == name
    assert places.route(0, 1, 5001) == Route("tcp://192.0.2.2:5001", bench.key("one"))
    assert places.route(1, 2, 5002) == Route("tcp://[fe80::2%en3]:5002", bench.key("two"))
    assert places.results == ANY_PORT
    assert places.route(2, COORDINATOR, 5003) == Route("tcp://192.0.2.1:5003", bench.key("cluster"))


def test_the_first_stage_elsewhere_is_reached_from_the_head_node(bench: Bench) -> None:
    bench.bring_up("head", "one")
    places = bench.places("one")
    assert bench.spec(places, "one", 0, 1).inbound == ANY_PORT
    assert places.route(COORDINATOR, 0, 5000) == Route("tcp://192.0.2.2:5000", bench.key("one"))


def test_a_way_is_open_until_its_address_dies(bench: Bench) -> None:
    bench.bring_up("head", "one", "two")
    places = bench.places("head", "two")
    way = places.route(0, 1, 5001)
    assert places.is_open(0, 1, way)
    two = bench.rack.id("two")
    bench.agents["head"].say(PathsSeen(two, (SPARE["two"],), (ADDRESSES["two"],)))
    wait_until(lambda: not places.is_open(0, 1, way), "the way is closed")
    other = places.route(0, 1, 5001)
    assert other.endpoint == "tcp://198.51.100.3:5001"
    assert places.is_open(0, 1, other)
    bench.agents["head"].say(PathsSeen(two, (), (SPARE["two"], ADDRESSES["two"])))
    wait_until(lambda: not places.is_open(0, 1, other), "both are closed")
    with pytest.raises(NoPathError, match=r"no way is open from head to two: no address answers"):
        places.route(0, 1, 5001)


@pytest.mark.parametrize("address", ["a]b:c", "fe80::1%]:x", ":", ""])
def test_an_address_that_is_none_stops_nobody(bench: Bench, address: str) -> None:
    bench.bring_up("one", "two")
    two = bench.rack.id("two")
    bench.agents["one"].say(Measured(two, (measurement(address),)))
    places = bench.places("one", "two")
    way = Route(f"tcp://{join_port(address, 5001)}", bench.key("two"))
    wait_until(lambda: places.route(0, 1, 5001) == way, "it is known")
    assert places.is_open(0, 1, way)
    bench.agents["one"].say(PathsSeen(two, (), (address,)))
    wait_until(lambda: not places.is_open(0, 1, way), "the way is closed")


def test_whoever_follows_hears_of_changes(bench: Bench) -> None:
    bench.bring_up("head", "one")
    places, changes = bench.places("head", "one"), list[str]()
    places.follow(lambda: changes.append("changed"))
    bench.agents["head"].say(PathsSeen(bench.rack.id("one"), (), ()))
    wait_until(lambda: changes == ["changed"], "it is told")
    places.close()
    bench.agents["head"].say(PathsSeen(bench.rack.id("one"), (), ()))
    bench.agents["head"].hear(
        CoordinatorBeat, len(bench.agents["head"].all_of(CoordinatorBeat)) + 2
    )
    assert changes == ["changed"]


# Who may connect


@pytest.mark.parametrize(
    ("names", "is_looped", "senders"),
    [
        (("one", "two"), False, [{"cluster"}, {"one"}]),
        (("one", "two"), True, [{"cluster", "two"}, {"one"}]),
        (("one", "one"), False, [{"cluster"}, {"one"}]),
        (("one",), True, [{"cluster", "one"}]),
        (("head", "two"), True, [{"cluster", "two"}, {"head"}]),
    ],
)
def test_each_stage_lets_in_only_those_who_send_to_it(
    bench: Bench, names: tuple[str, ...], is_looped: bool, senders: list[set[str]]
) -> None:
    bench.bring_up("head", "one", "two")
    places = bench.places(*names, is_looped=is_looped)
    for stage, (name, allowed) in enumerate(zip(names, senders, strict=True)):
        spec = bench.spec(places, name, stage, len(names))
        assert set(spec.senders) == {bench.key(sender) for sender in allowed}
        assert spec.keys is None  # the agent's own, which it fills in


def test_a_loop_over_machines_leaves_the_first_stage_no_socket_of_its_own(bench: Bench) -> None:
    bench.bring_up("head", "one")
    places = bench.places("head", "one", is_looped=True)
    assert bench.spec(places, "head", 0, 2).inbound == ANY_PORT
    assert places.route(1, 0, 5000) == Route("tcp://192.0.2.1:5000", bench.key("head"))
    assert places.route(COORDINATOR, 0, 5000) == Route("tcp://127.0.0.1:5000", bench.key("head"))


def test_a_loop_on_the_head_node_stays_there(bench: Bench) -> None:
    bench.bring_up("head")
    places = bench.places("head", "head", is_looped=True)
    assert all(
        bench.spec(places, "head", stage, 2).inbound.startswith("ipc://") for stage in (0, 1)
    )
    assert places.route(1, 0, 0) == places.route(COORDINATOR, 0, 0)


def test_results_are_taken_from_the_last_stage_alone(bench: Bench) -> None:
    bench.bring_up("head", "one", "two")
    guard = bench.places("one", "two").results_guard
    assert guard is not None
    assert guard.keys == bench.rack.head.keys == bench.places("one", "two").keys
    allowed = [name for name in ("cluster", "head", "one", "two") if guard.allows(bench.key(name))]
    assert allowed == ["two"]


# Workers


def test_a_worker_is_heard_and_told(bench: Bench) -> None:
    bench.bring_up("head")
    agent, places = bench.agents["head"], bench.places("head")
    reports: list[Report] = []
    ends: list[str] = []
    worker = places.launch(stage_spec(0, 1), reports.append, ends.append)
    started = agent.hear(StartWorker)
    assert started.worker_id == worker.worker_id
    assert worker.pid == 0
    agent.runs = (worker.worker_id,)
    agent.say(
        WorkerStarted(worker.worker_id, 42, 1),
        WorkerSaid(worker.worker_id, Bound(0), 2),
        WorkerSaid(worker.worker_id, Ready(1, "CPU"), 3),
    )
    wait_until(lambda: len(reports) == 2, "it has reported")
    assert reports == [Bound(0), Ready(1, "CPU")]
    assert worker.pid == 42
    worker.route(Routes(1))
    assert agent.hear(RouteWorker).routes == Routes(1)
    worker.ask_to_stop()
    agent.hear(StopWorker)
    agent.say(WorkerEnded(worker.worker_id, "was told to end", 4))
    start = time.monotonic()
    worker.join()
    assert time.monotonic() - start < STOP_GRACE_S
    assert ends == ["was told to end"]


def test_a_node_that_comes_back_elsewhere_is_placed_anew(bench: Bench) -> None:
    bench.bring_up("head")
    places = bench.places("head")
    before = bench.spec(places, "head", 0, 1)
    bench.agents["head"].reconnect()
    bench.agents["head"].say(hello("second", run_dir="/run/second", user_id=os.getuid()))
    wait_until(
        lambda: (
            (said := bench.rack.plane.hello(bench.rack.id("head"))) is not None
            and said.run_dir == "/run/second"
        ),
        "it is there again",
    )
    after = bench.spec(places, "head", 0, 1)
    assert after.inbound.startswith("ipc:///run/second/")
    assert places.route(COORDINATOR, 0, 0) == Route(after.inbound) != Route(before.inbound)


def test_nothing_is_started_on_a_node_that_was_revoked(bench: Bench) -> None:
    bench.bring_up("head", "one")
    places = bench.places("one")
    bench.rack.trusted.members.revoke("one")
    with pytest.raises(StageError, match="stage 0 was on one, which was revoked"):
        places.launch(stage_spec(0, 1), lambda report: None, lambda what: None)
