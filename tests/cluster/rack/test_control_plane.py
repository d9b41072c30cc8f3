"""The control plane over real connections, with agents that say what the test tells them to."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tbcluster.cluster.rack import attendance
from tbcluster.cluster.rack.control_plane import ControlPlane
from tbcluster.cluster.rack.link_book import LinkBook, decode_links
from tbcluster.cluster.trust import MemberRing
from tbcluster.errors import NoPathError, RackError
from tbcluster.machine import NodeState, NodeView, RackView, Serving
from tbcluster.transport.curve import new_keys
from tbcluster.wire.control import Bound, Ready, Routes
from tbcluster.wire.rack import (
    RACK_PROTOCOL,
    AskRack,
    CoordinatorBeat,
    FreeWorker,
    FromAgent,
    FromCoordinator,
    Goodbye,
    Hello,
    Inspect,
    Inspected,
    Measure,
    Measured,
    PathsSeen,
    Peers,
    RackAnswer,
    Refused,
    RouteWorker,
    StartWorker,
    StopWorker,
    Welcome,
    WhoAreYou,
    WorkerEnded,
    WorkerSaid,
    WorkerStarted,
)
from tests.doubles.control_planes import RackOfScripts
from tests.doubles.nodes import hello, interface, measurement, stage_spec
from tests.doubles.scripted_agent import ScriptedAgent
from tests.doubles.waiting import wait_until

SPEC = stage_spec()
READY = Ready(1, "CPU")
PATH = measurement("192.0.2.2")


LEASE_S = 1.0  # agents of scripts beat every 0.2 s


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "LEASE_S", LEASE_S)


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[RackOfScripts]:
    with RackOfScripts(tmp_path) as made:
        yield made


def is_online(*names: str) -> Callable[[list[NodeView]], bool]:
    def are_there(nodes: list[NodeView]) -> bool:
        there = {node.name for node in nodes if node.state is NodeState.ONLINE}
        return there >= set(names)

    return are_there


def measures(*addresses: str) -> Callable[[FromCoordinator], FromAgent | None]:
    """Answers every Measure with these paths."""

    def answer(message: FromCoordinator) -> FromAgent | None:
        if isinstance(message, Measure):
            paths = (measurement(address, time.time()) for address in addresses)
            return Measured(message.peer_id, tuple(paths))
        return None

    return answer


# Greetings


def test_a_node_is_welcomed_and_beats_are_answered(rack: RackOfScripts) -> None:
    agent = rack.bring_up("one")
    welcome = agent.hear(Welcome)
    assert (welcome.cluster_name, welcome.node_name) == ("rack", "one")
    assert welcome.addresses == ("192.0.2.1",)
    assert agent.hear(CoordinatorBeat, 2) == CoordinatorBeat(0)
    assert rack.states() == {"head": "offline", "one": "online"}
    assert rack.plane.wait_for(lambda nodes: any(node.clock_offset_s for node in nodes), 5.0)
    assert rack.plane.hello(rack.id("one")) == hello("one's first")
    assert rack.plane.hello(rack.id("head")) is None


def test_a_node_that_joins_meanwhile_is_welcomed_at_its_first_word(rack: RackOfScripts) -> None:
    for name in ("one", "two", "three"):
        agent = rack.bring_up(name)
        assert agent.all_of(Refused) == []
        assert isinstance(agent.told[0], Welcome)


def test_nodes_are_told_of_one_another(rack: RackOfScripts) -> None:
    one = rack.bring_up("one")
    two = rack.bring_up("two", hello("second", probe_port=5555, certificate="a certificate"))
    wait_until(lambda: len(one.all_of(Peers)) > 1, "one is told of two")
    (known,) = one.all_of(Peers)[-1].peers
    assert (known.name, known.probe_port, known.certificate) == ("two", 5555, "a certificate")
    assert known.public_key == rack.member("two").public_key
    assert [peer.name for peer in two.hear(Peers).peers] == ["one"]


def test_who_is_no_member_does_not_get_in(rack: RackOfScripts) -> None:
    stranger = ScriptedAgent(rack.head, new_keys())
    try:
        stranger.say(hello())
        rack.bring_up("one").hear(CoordinatorBeat)
        assert stranger.told == []
    finally:
        stranger.close()


def test_a_node_that_is_revoked_is_told_and_its_workers_are_over(rack: RackOfScripts) -> None:
    agent, news = rack.bring_up("one"), list[object]()
    rack.plane.start_worker(rack.id("one"), "w1", lambda _: SPEC, news.append)
    agent.hear(StartWorker)
    node_id = rack.id("one")
    assert not rack.plane.is_revoked(node_id)
    rack.trusted.members.revoke("one")
    agent.hear(Refused)
    wait_until(lambda: bool(news), "the worker is over")
    assert news == ["is on one, which was revoked"]
    assert rack.plane.is_revoked(node_id)
    assert rack.states()["one"] == "revoked"


# Versions, and what is not understood


def test_another_version_is_refused(rack: RackOfScripts) -> None:
    rack.admit("one")
    agent = rack.connect("one")
    agent.say(hello(tbcluster_version="9.9", protocol=7))
    assert "9.9" in agent.hear(Refused).reason
    assert rack.states()["one"] == "refused"


@pytest.mark.parametrize(
    "greeting",
    [
        {"protocol": RACK_PROTOCOL + 1, "tbcluster_version": "9.9", "machine": {"chip": 5}},
        {"protocol": RACK_PROTOCOL + 1, "tbcluster_version": "9.9"},
        {"protocol": RACK_PROTOCOL, "tbcluster_version": "9.9", "incarnation": None, "new": [1]},
    ],
)
def test_a_greeting_of_another_version_that_does_not_parse_is_refused_with_both_versions(
    rack: RackOfScripts, greeting: dict[str, object]
) -> None:
    rack.admit("one")
    agent = rack.connect("one")
    agent.say_bytes(msgspec.msgpack.encode({"type": "hello", **greeting}))
    reason = agent.hear(Refused).reason
    assert "one runs tbcluster 9.9" in reason
    assert f"the head node {rack.plane.view().tbcluster_version}" in reason
    (view,) = (node for node in rack.plane.nodes() if node.name == "one")
    assert (view.state, view.refused_because) == (NodeState.REFUSED, reason)
    # The right version is installed, and all is well.
    agent.say(hello())
    agent.hear(Welcome)


def test_garbage_is_dropped_and_logged(
    rack: RackOfScripts, caplog: pytest.LogCaptureFixture
) -> None:
    agent = rack.bring_up("one")
    with caplog.at_level(logging.WARNING, "tbcluster"):
        for frame in (b"", b"\xff" * 100, b"\x91" * 50_000, msgspec.msgpack.encode({"type": "x"})):
            for _ in range(3):
                agent.say_bytes(frame)
        wait_until(lambda: "dropped 10 messages" in caplog.text, "they are counted")
        # A log that grew with each of them would fill the disk.
        assert caplog.text.count("dropped") == 2
    number = len(agent.all_of(CoordinatorBeat))
    agent.hear(CoordinatorBeat, number + 2)
    assert rack.states()["one"] == "online"


# Workers


def test_the_life_of_a_worker(rack: RackOfScripts) -> None:
    agent, news = rack.bring_up("one", hello(run_dir="/run/one")), list[object]()
    node_id = rack.id("one")
    rack.plane.start_worker(
        node_id, "w1", lambda said: msgspec.structs.replace(SPEC, run_dir=said.run_dir), news.append
    )
    assert agent.hear(StartWorker).spec.run_dir == "/run/one"
    agent.runs = ("w1",)
    agent.say(WorkerStarted("w1", 42, 1), WorkerSaid("w1", Bound(5000), 2))
    agent.say(WorkerSaid("w1", READY, 3))
    wait_until(lambda: len(news) == 3, "three are heard")
    assert news == [WorkerStarted("w1", 42, 1), Bound(5000), READY]
    rack.plane.route_worker(node_id, "w1", Routes(7))
    assert agent.hear(RouteWorker) == RouteWorker("w1", Routes(7))
    wait_until(lambda: CoordinatorBeat(3) in agent.told, "it is acknowledged")
    rack.plane.stop_worker(node_id, "w1")
    assert agent.hear(StopWorker) == StopWorker("w1")
    agent.say(WorkerEnded("w1", "was told to end", 4), WorkerEnded("w1", "again", 5))
    wait_until(lambda: len(news) == 4, "its end is heard")
    wait_until(lambda: CoordinatorBeat(5) in agent.told, "both are acknowledged")
    assert news[3:] == ["was told to end"]


def test_a_worker_is_started_when_its_node_comes(rack: RackOfScripts) -> None:
    rack.admit("one")
    news: list[object] = []
    rack.plane.start_worker(rack.id("head"), "w0", lambda _: SPEC, news.append)
    rack.bring_up("one")
    agent = rack.bring_up("head")
    assert agent.hear(StartWorker) == StartWorker("w0", SPEC)
    assert news == []


def test_workers_outlive_a_connection_and_end_with_their_agent(rack: RackOfScripts) -> None:
    agent, news = rack.bring_up("one"), list[object]()
    rack.plane.start_worker(rack.id("one"), "w1", lambda _: SPEC, news.append)
    agent.hear(StartWorker)
    agent.runs = ("w1",)
    agent.say(WorkerStarted("w1", 42, 1))
    wait_until(lambda: bool(news), "it is started")
    agent.reconnect()
    agent.say(hello("one's first"), WorkerStarted("w1", 42, 1), WorkerSaid("w1", READY, 2))
    wait_until(lambda: len(news) > 1, "it is ready")
    assert news[1:] == [READY]
    agent.reconnect()
    agent.say(hello("one's second"))
    wait_until(lambda: len(news) > 2, "its end is known")
    assert news[2:] == ["is on one, which was started again"]
    agent.hear(FreeWorker)  # it names it, though it cannot know it


@pytest.mark.usefixtures("short_lease")
def test_a_node_that_falls_silent_has_lost_its_workers(rack: RackOfScripts) -> None:
    agent, news = rack.bring_up("one"), list[object]()
    rack.plane.start_worker(rack.id("one"), "w1", lambda _: SPEC, news.append)
    agent.hear(StartWorker)
    agent.is_silent = True
    wait_until(lambda: bool(news), "the lease has run out")
    assert news == ["is on one, which does not answer any more"]
    assert rack.states()["one"] == "offline"
    (view,) = (node for node in rack.plane.nodes() if node.name == "one")
    assert view.seconds_since_heard is not None
    assert view.seconds_since_heard > LEASE_S
    agent.is_silent = False
    agent.runs = ("w1",)
    agent.say(hello("one's first"))
    agent.hear(Welcome, 2)
    assert agent.hear(FreeWorker) == FreeWorker("w1")


def test_a_worker_is_freed(rack: RackOfScripts) -> None:
    agent, news = rack.bring_up("one"), list[object]()
    rack.plane.start_worker(rack.id("one"), "w1", lambda _: SPEC, news.append)
    agent.hear(StartWorker)
    rack.plane.free_worker(rack.id("one"), "w1")
    assert agent.hear(FreeWorker) == FreeWorker("w1")
    agent.say(WorkerEnded("w1", "was freed", 1))
    wait_until(lambda: bool(news), "it has ended for this plan")


def test_an_agent_that_did_not_greet_is_asked_to(rack: RackOfScripts) -> None:
    """As one that a coordinator left which was killed."""
    rack.admit("one")
    agent = rack.connect("one")
    agent.hear(WhoAreYou)
    agent.say(hello())
    agent.hear(Welcome)
    assert rack.states()["one"] == "online"


# Who can be given stages


@pytest.mark.usefixtures("short_lease")
def test_whoever_follows_the_nodes_is_told_of_each_change(rack: RackOfScripts) -> None:
    seen: list[set[str]] = []
    names = {rack.admit(name).node_id: name for name in ("one", "two")}
    note = lambda: seen.append({names[one] for one in rack.plane.usable()})  # noqa: E731
    rack.plane.follow_nodes(note)
    members = rack.trusted.members
    one = rack.bring_up("one")
    wait_until(lambda: seen == [{"one"}], "one came")
    rack.bring_up("two")
    members.drain("two")
    wait_until(lambda: seen[1:] == [{"one", "two"}, {"one"}], "two came and was drained")
    members.undrain("two")
    one.is_silent = True
    wait_until(lambda: seen[3:] == [{"one", "two"}, {"two"}], "one fell silent")
    members.revoke("one")
    wait_until(lambda: seen[5:] == [{"two"}], "one was revoked")
    rack.plane.unfollow_nodes(note)
    members.drain("two")
    wait_until(lambda: rack.plane.usable() == [], "two is drained")
    assert len(seen) == 6


def test_a_command_hears_why_a_node_cannot_be_drained(rack: RackOfScripts) -> None:
    rack.plane.may_drain = lambda name: f"{name} is needed" if name == "one" else None
    client = rack.connect("cluster")
    client.say(AskRack(may_drain="one"))
    assert client.hear(Refused) == Refused("one is needed")
    client.say(AskRack(may_drain="two"))
    client.hear(RackAnswer)
    with pytest.raises(RackError, match="one is needed"):
        rack.plane.ask(AskRack(may_drain="one"))

    def fails(name: str) -> str | None:
        raise NoPathError("no plan without it")

    rack.plane.may_drain = fails
    client.say(AskRack(may_drain="two"))
    assert client.hear(Refused, 2) == Refused("no plan without it")


# Links


def test_links_are_measured_one_at_a_time_for_each_node_and_kept(rack: RackOfScripts) -> None:
    one, two = rack.bring_up("one"), rack.bring_up("two")
    there, back = (rack.id("one"), rack.id("two")), (rack.id("two"), rack.id("one"))
    wait_until(lambda: bool(one.all_of(Measure) or two.all_of(Measure)), "a measurement begins")
    assert not rack.plane.wait_for(is_online("one", "two"), 0.3)
    assert len(one.all_of(Measure)) + len(two.all_of(Measure)) == 1
    with pytest.raises(NoPathError):
        rack.plane.best_path(*there)
    one.answer = two.answer = measures("192.0.2.2", "198.51.100.2")
    first, second = (one, two) if one.all_of(Measure) else (two, one)
    target = first.hear(Measure).peer_id
    first.say(Measured(target, (PATH,)))
    second.hear(Measure)
    assert rack.plane.wait_for(is_online("one", "two"), 10.0)
    assert rack.plane.best_path(*there).path.address == "192.0.2.2"
    assert rack.plane.best_path(*back).path.address == "192.0.2.2"
    known = {(link.source, link.target) for link in decode_links(rack.saved[-1])}
    assert known == {there, back}
    assert {(view.source, view.target) for view in rack.plane.view().links} == known


def test_a_path_that_dies_is_avoided_and_whoever_follows_is_called(rack: RackOfScripts) -> None:
    pair = ("one", "two")
    answer = measures("192.0.2.2", "198.51.100.2")
    one, _ = (rack.bring_up(name, answer=answer) for name in pair)
    ids = (rack.id("one"), rack.id("two"))
    assert rack.plane.wait_for(is_online(*pair), 10.0)
    has_changed = threading.Event()
    rack.plane.follow(has_changed.set)
    one.say(PathsSeen(ids[1], ("198.51.100.2",), ("192.0.2.2",)))
    assert has_changed.wait(10.0)
    assert rack.plane.best_path(*ids).path.address == "198.51.100.2"
    assert not rack.plane.is_alive(*ids, "192.0.2.2")
    assert rack.plane.is_alive(*ids, "198.51.100.2")
    (view,) = (link for link in rack.plane.view().links if (link.source, link.target) == ids)
    assert view.dead == ("192.0.2.2",)


def test_who_does_not_follow_any_more_is_not_called(rack: RackOfScripts) -> None:
    one, calls = rack.bring_up("one"), list[str]()
    former, present = (lambda name=name: calls.append(name) for name in ("former", "present"))
    rack.plane.follow(former)
    rack.plane.follow(present)
    rack.plane.unfollow(former)
    one.say(PathsSeen(rack.id("head"), (), ()))
    wait_until(lambda: bool(calls), "one is called")
    assert calls == ["present"]


def test_what_is_said_of_a_way_to_nobody_is_dropped(rack: RackOfScripts) -> None:
    one, calls = rack.bring_up("one"), list[str]()
    rack.plane.follow(lambda: calls.append("changed"))
    one.say(PathsSeen("nobody", (), ("192.0.2.9",)), Measured("nobody", (PATH,)))
    one.hear(CoordinatorBeat, len(one.all_of(CoordinatorBeat)) + 2)
    assert calls == []
    assert rack.plane.view().links == ()


def test_links_are_measured_anew_only_when_an_interface_changes(rack: RackOfScripts) -> None:
    here, there = [interface("en0", "192.0.2.1")], [interface("en0", "192.0.2.2")]
    one = measured_agent(rack, "one", hello("first", interfaces=here))
    two = measured_agent(rack, "two", hello("first", interfaces=there))

    def num_measured() -> int:
        return len(one.all_of(Measure)) + len(two.all_of(Measure))

    assert rack.plane.wait_for(is_online("one", "two"), 10.0)
    assert num_measured() == 2
    one.reconnect()
    one.say(hello("second", interfaces=here))
    one.hear(Welcome, 2)
    assert rack.plane.wait_for(is_online("one", "two"), 10.0)
    assert num_measured() == 2
    one.say(Inspected(hello(interfaces=[interface("en0", "192.0.2.9")]).machine))
    wait_until(lambda: num_measured() == 4, "both directions are measured anew")


def test_what_was_measured_in_an_earlier_run_is_known(tmp_path: Path) -> None:
    with RackOfScripts(tmp_path) as rack:
        one, two = (measured_agent(rack, name) for name in ("one", "two"))
        assert rack.plane.wait_for(is_online("one", "two"), 10.0)
        rack.restart(decode_links(rack.saved[-1]))
        for name in ("one", "two"):
            assert rack.bring_up(name).all_of(Measure) == []
        assert rack.plane.wait_for(is_online("one", "two"), 10.0)
        assert rack.plane.best_path(rack.id("one"), rack.id("two")).path.address == "192.0.2.2"
        assert len(one.all_of(Measure)) + len(two.all_of(Measure)) == 2
        rack.bring_up("one").hear(CoordinatorBeat)


def test_a_measurement_is_asked_for_again_over_a_new_connection(rack: RackOfScripts) -> None:
    one, two = rack.bring_up("one"), rack.bring_up("two")
    wait_until(lambda: bool(one.all_of(Measure) or two.all_of(Measure)), "a measurement begins")
    asked = one if one.all_of(Measure) else two
    asked.reconnect()
    asked.say(hello("one's first" if asked is one else "two's first"))
    assert asked.hear(Measure, 2) == asked.hear(Measure)


@pytest.mark.usefixtures("short_lease")
def test_a_node_that_is_gone_is_not_waited_for_and_blocks_no_other(rack: RackOfScripts) -> None:
    three = rack.admit("three").node_id
    to_three = measures("192.0.2.3")
    one = rack.bring_up(
        "one", answer=lambda said: to_three(said) if said == Measure(three) else None
    )
    two = rack.bring_up("two")
    wait_until(lambda: bool(one.all_of(Measure) or two.all_of(Measure)), "a measurement begins")
    two.close()
    assert not rack.plane.wait_for(is_online("one"), 0.0)
    measured_agent(rack, "three")
    assert rack.plane.wait_for(is_online("one", "three"), 10 * LEASE_S)
    assert rack.states()["two"] == "offline"
    assert rack.plane.best_path(rack.id("one"), three).path.address == "192.0.2.3"


# Questions


def test_a_question_of_a_command_is_answered(rack: RackOfScripts) -> None:
    rack.bring_up("one")
    rack.plane.describe = lambda: Serving("/model", "ready", {"one": ("0: layers 0-15",)})
    command = rack.connect("cluster")
    command.is_silent = True
    command.say(AskRack())
    view = command.hear(RackAnswer).rack
    assert (view.cluster_id, view.cluster_name) == (rack.head.cluster_id, "rack")
    assert (view.serving, view.serving_state) == ("/model", "ready")
    assert [(node.name, node.stages) for node in view.nodes] == [
        ("head", ()),
        ("one", ("0: layers 0-15",)),
    ]
    assert view.nodes[0].is_head


def test_a_node_may_not_ask_what_a_command_may(rack: RackOfScripts) -> None:
    agent = rack.bring_up("one")
    agent.say(AskRack())
    agent.hear(CoordinatorBeat, 2)
    assert agent.all_of(RackAnswer) == []


def test_a_question_is_answered_when_all_have_looked(rack: RackOfScripts) -> None:
    agents = [measured_agent(rack, name) for name in ("one", "two")]
    assert rack.plane.wait_for(is_online("one", "two"), 10.0)
    command = rack.connect("cluster")
    command.say(AskRack(inspects=True))
    for number, agent in enumerate(agents):
        agent.hear(Inspect)
        assert command.all_of(RackAnswer) == []
        agent.say(Inspected(replace(hello().machine, hostname=f"new-{number}")))
    view = command.hear(RackAnswer).rack
    names = [node.machine.hostname for node in view.nodes if node.machine is not None]
    assert names == ["new-0", "new-1"]


def test_a_question_is_answered_when_all_links_are_measured(rack: RackOfScripts) -> None:
    one, two = (measured_agent(rack, name) for name in ("one", "two"))
    assert rack.plane.wait_for(is_online("one", "two"), 10.0)
    one.answer = two.answer = measures("198.51.100.2")
    view = rack.plane.ask(AskRack(measures=True))
    assert len(one.all_of(Measure)) == len(two.all_of(Measure)) == 2
    addresses = {link.paths[0].path.address for link in view.links}
    assert addresses == {"198.51.100.2"}
    assert len(view.links) == 2


@pytest.mark.usefixtures("short_lease")
def test_a_node_that_goes_away_is_not_waited_for_with_an_answer(rack: RackOfScripts) -> None:
    agent = rack.bring_up("one")
    answers: list[RackView] = []
    asking = threading.Thread(target=lambda: answers.append(rack.plane.ask(AskRack(inspects=True))))
    asking.start()
    agent.hear(Inspect)
    agent.close()
    asking.join(10 * LEASE_S)
    assert [node.state for node in answers[0].nodes] == [NodeState.OFFLINE, NodeState.OFFLINE]


# The end


def test_whoever_is_there_is_told_goodbye(rack: RackOfScripts) -> None:
    agents = [rack.bring_up("one"), rack.bring_up("two")]
    rack.plane.close()
    for agent in agents:
        assert agent.hear(Goodbye) == Goodbye()


def test_agents_are_told_that_another_coordinator_follows(rack: RackOfScripts) -> None:
    agent = rack.bring_up("one")
    rack.plane.close(keeps_workers=True)
    assert agent.hear(Goodbye) == Goodbye(keeps_workers=True)


def test_whoever_waits_learns_that_it_was_closed(tmp_path: Path) -> None:
    rack = RackOfScripts(tmp_path)
    rack.bring_up("one")
    failures: list[BaseException] = []

    def attempt(call: Callable[[], object]) -> None:
        try:
            call()
        except RackError as error:
            failures.append(error)

    waiting = [
        threading.Thread(target=attempt, args=(call,))
        for call in (
            lambda: rack.plane.wait_for(lambda nodes: False),
            lambda: rack.plane.ask(AskRack(inspects=True)),
        )
    ]
    for thread in waiting:
        thread.start()
    rack.close()
    for thread in waiting:
        thread.join(10.0)
    assert ["was closed" in str(failure) for failure in failures] == [True, True]
    for call in (
        lambda: rack.plane.ask(AskRack()),
        lambda: rack.plane.wait_for(lambda nodes: True),
        lambda: rack.plane.start_worker(rack.id("one"), "w1", lambda _: SPEC, lambda news: None),
    ):
        with pytest.raises(RackError, match="was closed"):
            call()
    rack.plane.close()


def test_what_fails_in_its_thread_does_not_leave_anyone_waiting(
    rack: RackOfScripts, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    agent, news = rack.bring_up("one"), list[object]()
    rack.plane.start_worker(rack.id("one"), "w1", lambda _: SPEC, news.append)
    agent.hear(StartWorker)
    rack.plane.follow(fail)
    agent.say(PathsSeen(rack.id("head"), (), ()))
    with pytest.raises(RackError, match="was closed"):
        rack.plane.wait_for(lambda nodes: False, 10.0)
    assert "the control plane failed" in caplog.text
    wait_until(lambda: bool(news), "those who have a worker are told")
    assert news == ["is out of reach: the rack was closed"]


def test_the_port_is_one_coordinators(rack: RackOfScripts) -> None:
    with pytest.raises(RackError, match=str(rack.head.control_port)):
        ControlPlane(rack.head, MemberRing(rack.trusted.members), LinkBook())


def measured_agent(rack: RackOfScripts, name: str, said: Hello | None = None) -> ScriptedAgent:
    """An agent that measures what it is told to, and finds one path."""
    return rack.bring_up(name, said, answer=measures("192.0.2.2"))
