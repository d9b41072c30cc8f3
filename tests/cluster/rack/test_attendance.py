"""Who is there and what they run: what is heard, and what follows from it."""

from collections.abc import Iterable
from typing import TypeVar

import pytest
from msgspec.structs import replace

from tbcluster.cluster.rack.actions import (
    Action,
    Asked,
    LinkNews,
    Looked,
    NodeChanged,
    NodeDown,
    NodeReconnected,
    NodeUp,
    Send,
    Told,
    WorkerNews,
)
from tbcluster.cluster.rack.attendance import LEASE_S, Attendance, Coordinator
from tbcluster.cluster.rack.node_workers import START_GRACE_S
from tbcluster.cluster.trust import Member
from tbcluster.machine import Gauges, NodeState, NodeView
from tbcluster.wire.control import Bound, Ready, Routed, Routes, StageSpec
from tbcluster.wire.messages import PROTOCOL_VERSION
from tbcluster.wire.rack import (
    RACK_PROTOCOL,
    AgentBeat,
    AskRack,
    CoordinatorBeat,
    FreeWorker,
    FromAgent,
    FromCoordinator,
    Hello,
    HelloVersions,
    Inspect,
    Inspected,
    Measure,
    Measured,
    PathsSeen,
    Peers,
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
from tests.doubles.nodes import VERSION, hello, interface, key_of, member, stage_spec

Kind = TypeVar("Kind", bound=FromCoordinator)

CLUSTER_KEY = key_of("cluster")
WALL = 1.8e9
HEAD, ONE, TWO = member("head", is_head=True), member("one"), member("two")
SPEC = stage_spec()
READY = Ready(1, "CPU")
WORKER = "w1"


class Bench:
    """An attendance with a clock; the connection of a node has its name, unless told otherwise."""

    def __init__(self) -> None:
        me = Coordinator("now", "rack", CLUSTER_KEY, VERSION, ("192.0.2.1",))
        self.attendance = Attendance(me, [HEAD, ONE, TWO])
        self.now = 100.0

    def say(
        self, message: FromAgent, name: str = "one", *, peer: str = "", wall: float = WALL
    ) -> list[Action]:
        """A node says something."""
        connection = (peer or name).encode()
        return self.attendance.heard(key_of(name), connection, message, self.now, wall)

    def greet(self, *names: str, hello: Hello = hello()) -> list[Action]:  # noqa: B008 - frozen
        """Nodes say hello; gives what follows from the last one's."""
        return [self.say(hello, name) for name in names or ("one",)][-1]

    def beat(self, *workers: str, name: str = "one") -> list[Action]:
        return self.say(AgentBeat(WALL, workers), name)

    def start(self, member: Member = ONE, worker: str = WORKER) -> list[Action]:
        return self.attendance.start_worker(
            member.node_id, worker, lambda said: replace(SPEC, run_dir=said.run_dir), self.now
        )

    def pass_time(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.attendance.tick(self.now)

    def view(self, name: str) -> NodeView:
        return next(node for node in self.attendance.views(self.now) if node.name == name)

    def state(self, name: str) -> NodeState:
        return self.view(name).state


@pytest.fixture
def bench() -> Bench:
    return Bench()


def told(actions: Iterable[Action], kind: type[Kind], peer: str = "one") -> list[Kind]:
    """Messages of a kind to a connection."""
    sent = [action for action in actions if isinstance(action, Send)]
    return [
        send.message
        for send in sent
        if send.peer == peer.encode() and isinstance(send.message, kind)
    ]


def news(actions: Iterable[Action]) -> list[object]:
    """What is passed on of workers."""
    return [action.news for action in actions if isinstance(action, WorkerNews)]


def peer_names(actions: Iterable[Action], peer: str) -> list[str]:
    """The nodes that a node is told of, the last time."""
    return [peer.name for peer in told(actions, Peers, peer)[-1].peers]


# Coming and going


def test_a_node_is_welcomed_and_can_be_used_from_then_on(bench: Bench) -> None:
    assert bench.state("one") is NodeState.OFFLINE
    assert bench.view("one").seconds_since_heard is None
    actions = bench.greet()
    assert told(actions, Welcome) == [Welcome("now", "rack", "one", ("192.0.2.1",))]
    assert NodeUp(ONE.node_id) in actions
    assert Told("one is online") in actions
    assert bench.attendance.online() == [ONE.node_id]
    assert bench.attendance.hello(ONE.node_id) == hello()
    view = bench.view("one")
    assert (view.state, view.machine) == (NodeState.ONLINE, hello().machine)
    assert view.seconds_since_heard == 0
    assert view.refused_because is None


def test_its_first_answer_is_the_welcome(bench: Bench) -> None:
    actions = bench.greet("two", "one")
    sent = [a.message for a in actions if isinstance(a, Send) and a.peer == b"one"]
    assert isinstance(sent[0], Welcome)


def test_beats_are_answered_and_carry_the_clock(bench: Bench) -> None:
    bench.greet()
    bench.now += 1.0
    actions = bench.say(AgentBeat(WALL + 7.5), wall=WALL)
    assert actions == [Send(b"one", CoordinatorBeat(0))]
    assert bench.view("one").clock_offset_s == 7.5
    bench.now += 0.5
    assert bench.view("one").seconds_since_heard == 0.5


def test_a_nodes_newest_gauges_are_told_while_it_is_online(bench: Bench) -> None:
    bench.greet()
    assert bench.view("one").gauges is None
    for watts in (10.0, 12.0):
        bench.say(AgentBeat(WALL, gauges=Gauges(WALL, watts=watts)))
        assert bench.view("one").gauges == Gauges(WALL, watts=watts)
    bench.pass_time(LEASE_S + 1)
    assert bench.view("one").gauges is None
    bench.greet()
    assert bench.view("one").gauges is None  # until it says some again


def test_the_lease_runs_out_only_in_silence(bench: Bench) -> None:
    bench.greet()
    for _ in range(10):
        assert bench.pass_time(LEASE_S) == []
        bench.beat()
    actions = bench.pass_time(LEASE_S + 0.01)
    assert actions == [NodeDown(ONE.node_id), Told("one does not answer any more")]
    assert bench.state("one") is NodeState.OFFLINE
    assert bench.attendance.online() == []
    assert bench.attendance.hello(ONE.node_id) is None
    assert bench.pass_time(LEASE_S) == []


def test_a_node_that_was_given_up_is_asked_to_greet_anew(bench: Bench) -> None:
    bench.greet()
    bench.pass_time(LEASE_S + 1)
    assert bench.beat() == [Send(b"one", WhoAreYou())]
    assert bench.say(WorkerEnded(WORKER, "is gone", 1)) == [Send(b"one", WhoAreYou())]
    assert bench.state("one") is NodeState.OFFLINE
    assert NodeUp(ONE.node_id) in bench.greet()


def test_an_agent_that_met_another_coordinator_here_is_asked_to_greet(bench: Bench) -> None:
    assert bench.beat("w of before") == [Send(b"one", WhoAreYou())]
    assert bench.state("one") is NodeState.OFFLINE


def test_a_node_that_comes_back_after_its_lease_has_its_workers_free(bench: Bench) -> None:
    bench.greet()
    bench.start()
    bench.beat(WORKER)
    bench.pass_time(LEASE_S + 1)
    bench.start(worker="w2")
    actions = bench.greet()
    kinds = [type(a.message) for a in actions if isinstance(a, Send)]
    # What is to be started may take it over.
    assert kinds == [Welcome, Peers, FreeWorker, StartWorker]
    assert told(actions, FreeWorker) == [FreeWorker(WORKER)]
    assert told(bench.greet(), FreeWorker) == []
    assert told(bench.beat("w2"), FreeWorker) == []


def test_a_node_that_is_drained_is_there_and_not_usable(bench: Bench) -> None:
    bench.greet("one", "two")
    drained = replace(ONE, is_drained=True)
    assert bench.attendance.follow([HEAD, drained, TWO]) == [NodeChanged(ONE.node_id)]
    assert bench.attendance.usable() == [TWO.node_id]
    assert bench.attendance.online() == [ONE.node_id, TWO.node_id]
    assert (bench.state("one"), bench.view("one").is_drained) == (NodeState.ONLINE, True)
    assert bench.attendance.follow([HEAD, drained, TWO]) == []
    assert bench.attendance.follow([HEAD, ONE, TWO]) == [NodeChanged(ONE.node_id)]
    assert bench.attendance.usable() == [ONE.node_id, TWO.node_id]


def test_the_nodes_are_told_of_one_another_at_each_change(bench: Bench) -> None:
    assert peer_names(bench.greet("one"), "one") == []
    actions = bench.greet("two")
    assert peer_names(actions, "one") == ["two"]
    assert peer_names(actions, "two") == ["one"]
    (known,) = told(actions, Peers, "two")[0].peers
    assert (known.node_id, known.public_key) == (ONE.node_id, ONE.public_key)
    assert (known.probe_port, known.interfaces) == (4711, hello().machine.interfaces)
    bench.greet("head")
    bench.now += LEASE_S
    bench.beat(name="one")
    bench.beat(name="head")
    actions = bench.pass_time(1.0)
    assert peer_names(actions, "one") == ["head"]
    assert peer_names(actions, "head") == ["one"]
    assert told(actions, Peers, "two") == []


def test_other_interfaces_are_told_to_the_peers_and_the_same_ones_are_not(bench: Bench) -> None:
    bench.greet("one", "two")
    same = bench.say(Inspected(hello().machine))
    assert same == [Looked(ONE.node_id)]
    moved = hello(interfaces=[interface("en9", "192.0.2.99")]).machine
    actions = bench.say(Inspected(moved))
    assert actions[0] == Looked(ONE.node_id)
    (known,) = told(actions, Peers, "two")[-1].peers
    assert known.interfaces == moved.interfaces
    assert bench.view("one").machine == moved


# Connections and incarnations


def test_the_same_agent_over_a_new_connection_keeps_its_workers(bench: Bench) -> None:
    bench.greet()
    bench.start()
    bench.beat(WORKER)
    actions = bench.say(hello(), peer="new")
    assert news(actions) == []
    assert NodeReconnected(ONE.node_id) in actions
    assert not {NodeDown(ONE.node_id), NodeUp(ONE.node_id)} & set(actions)
    assert told(actions, Welcome, "new")
    assert told(actions, StartWorker, "new") == []
    who = [Send(b"one", WhoAreYou())]
    assert bench.say(AgentBeat(WALL, (WORKER,)), peer="one") == who
    assert bench.say(WorkerSaid(WORKER, READY, 1), peer="one") == who
    assert news(bench.say(WorkerSaid(WORKER, READY, 1), peer="new")) == [READY]
    (routed,) = bench.attendance.route_worker(ONE.node_id, WORKER, Routes(1))
    assert routed == Send(b"new", RouteWorker(WORKER, Routes(1)))


def test_another_incarnation_has_none_of_the_workers(bench: Bench) -> None:
    bench.greet("two", "one")
    bench.start()
    bench.start(worker="w2")
    bench.beat(WORKER, "w2")
    actions = bench.say(hello("second"), peer="new")
    ends = news(actions)
    assert len(ends) == 2
    assert all(isinstance(end, str) and "one" in end for end in ends)
    # What it was to measure and to look at is asked again: the old agent does not answer any more.
    down, up = actions.index(NodeDown(ONE.node_id)), actions.index(NodeUp(ONE.node_id))
    assert down < up
    assert peer_names(actions, "two") == ["one"]
    assert peer_names(actions, "new") == ["two"]
    assert told(actions, Peers, "one") == []
    assert bench.attendance.online() == [ONE.node_id, TWO.node_id]


def test_another_incarnation_after_the_lease_ends_nothing_twice(bench: Bench) -> None:
    bench.greet()
    bench.start()
    (end,) = news(bench.pass_time(LEASE_S + 1))
    assert end == "is on one, which does not answer any more"
    actions = bench.greet(hello=hello("second"))
    assert news(actions) == []
    assert told(actions, StartWorker) == []
    assert told(actions, FreeWorker) == []  # the new agent cannot have it
    assert told(bench.beat(WORKER), FreeWorker) == [FreeWorker(WORKER)]


# Workers


def test_a_worker_is_started_with_a_spec_for_its_node(bench: Bench) -> None:
    bench.greet(hello=hello(run_dir="/run/one"))
    actions = bench.start()
    assert actions == [Send(b"one", StartWorker(WORKER, replace(SPEC, run_dir="/run/one")))]


def test_what_a_worker_says_is_passed_on_in_order(bench: Bench) -> None:
    bench.greet()
    bench.start()
    said: list[WorkerSaid | WorkerStarted | WorkerEnded] = [
        WorkerStarted(WORKER, 42, 1),
        WorkerSaid(WORKER, Bound(5000), 2),
        WorkerSaid(WORKER, READY, 3),
        WorkerEnded(WORKER, "was killed by signal 9", 4),
    ]
    heard = [one for message in said for one in news(bench.say(message))]
    assert heard == [said[0], Bound(5000), READY, "was killed by signal 9"]
    assert news(bench.say(WorkerSaid(WORKER, READY, 5))) == []
    assert news(bench.say(WorkerEnded(WORKER, "is gone", 6))) == []
    assert news(bench.pass_time(LEASE_S + 1)) == []


def test_what_was_heard_is_acknowledged_and_not_passed_on_twice(bench: Bench) -> None:
    bench.greet()
    bench.start()
    bench.say(WorkerStarted(WORKER, 42, 1))
    bench.say(WorkerSaid(WORKER, READY, 2))
    assert told(bench.beat(WORKER), CoordinatorBeat) == [CoordinatorBeat(2)]
    bench.say(hello(), peer="new")
    for repeated in (WorkerStarted(WORKER, 42, 1), WorkerSaid(WORKER, READY, 2)):
        assert bench.say(repeated, peer="new") == []
    assert news(bench.say(WorkerSaid(WORKER, Bound(1), 3), peer="new")) == [Bound(1)]
    (beat,) = told(bench.say(AgentBeat(WALL, (WORKER,)), peer="new"), CoordinatorBeat, "new")
    assert beat == CoordinatorBeat(3)


def test_what_comes_before_what_was_missed_is_heard_after_it(bench: Bench) -> None:
    """An agent greets, speaks of a worker before it is welcomed, and then repeats what it said
    while it had no connection."""
    bench.greet()
    bench.start()
    bench.say(WorkerStarted(WORKER, 42, 1))
    bench.say(hello(), peer="new")
    early, missed = WorkerSaid(WORKER, READY, 3), WorkerSaid(WORKER, Bound(5000), 2)
    heard = [one for message in (early, missed, early) for one in bench.say(message, peer="new")]
    assert news(heard) == [Bound(5000), READY]


def test_numbers_begin_again_with_another_incarnation(bench: Bench) -> None:
    bench.greet()
    bench.start()
    bench.say(WorkerStarted(WORKER, 42, 1))
    bench.greet(hello=hello("second"))
    bench.start(worker="w2")
    started = WorkerStarted("w2", 43, 1)
    assert news(bench.say(started)) == [started]


def test_numbers_go_on_after_a_lease_of_the_same_agent(bench: Bench) -> None:
    bench.greet()
    bench.start()
    bench.say(WorkerStarted(WORKER, 42, 1))
    bench.pass_time(LEASE_S + 1)
    bench.greet()
    # Nobody waits for its end any more, and the agent need not repeat it for ever.
    assert news(bench.say(WorkerEnded(WORKER, "was ended", 2))) == []
    assert told(bench.beat(), CoordinatorBeat) == [CoordinatorBeat(2)]


def test_the_lease_ends_all_workers_once(bench: Bench) -> None:
    bench.greet("one", "two")
    bench.start()
    bench.start(worker="w2")
    bench.start(TWO, "w3")
    bench.now += LEASE_S
    bench.beat("w3", name="two")
    actions = bench.pass_time(0.5)
    ended = {action.worker_id for action in actions if isinstance(action, WorkerNews)}
    assert ended == {WORKER, "w2"}
    assert news(bench.pass_time(0.1)) == []


def test_a_worker_that_its_agent_has_named_is_lost_when_it_names_it_no_more(bench: Bench) -> None:
    bench.greet()
    bench.start()
    assert news(bench.beat()) == []  # it may not have heard of it yet
    bench.beat(WORKER)
    assert news(bench.beat()) == ["was lost on one"]
    assert news(bench.beat()) == []


def test_a_worker_that_its_agent_never_names_is_lost_after_a_while(bench: Bench) -> None:
    bench.greet()
    bench.start()
    for _ in range(int(START_GRACE_S)):
        bench.now += 1.0
        assert news(bench.beat()) == []
    bench.now += 0.1
    assert news(bench.beat()) == ["was lost on one"]


def test_workers_that_nobody_wants_are_free(bench: Bench) -> None:
    bench.greet()
    bench.start()
    actions = bench.beat("of another time", WORKER)
    assert told(actions, FreeWorker) == [FreeWorker("of another time")]


def test_a_node_does_not_speak_for_another_ones_workers(bench: Bench) -> None:
    bench.greet("one", "two")
    bench.start()
    assert bench.say(WorkerEnded(WORKER, "is gone", 1), "two") == []
    assert bench.say(WorkerSaid(WORKER, READY, 2), "two") == []
    assert told(bench.beat(WORKER, name="two"), FreeWorker, "two") == [FreeWorker(WORKER)]
    assert news(bench.say(WorkerSaid(WORKER, READY, 1), "one")) == [READY]


@pytest.mark.parametrize("node", ["one", "two"])
def test_a_worker_waits_for_its_node(bench: Bench, node: str) -> None:
    assert bench.start() == []
    actions = bench.greet(node)
    expected = [StartWorker(WORKER, replace(SPEC, run_dir=hello().run_dir))]
    assert told(actions, StartWorker, node) == (expected if node == "one" else [])
    assert told(bench.greet("one", hello=hello()), StartWorker) == (
        [] if node == "one" else expected
    )


def test_a_worker_that_waited_has_its_grace_from_the_greeting_on(bench: Bench) -> None:
    bench.start()
    bench.now += 10 * START_GRACE_S
    actions = bench.greet()
    kinds = [type(action.message) for action in actions if isinstance(action, Send)]
    assert kinds.index(Welcome) < kinds.index(StartWorker)
    assert news(bench.beat()) == []
    assert news(bench.beat(WORKER)) == []
    assert news(bench.pass_time(LEASE_S + 1)) == ["is on one, which does not answer any more"]


def test_a_worker_that_waits_can_be_cancelled(bench: Bench) -> None:
    bench.start()
    cancelled = bench.attendance.stop_worker(ONE.node_id, WORKER)
    assert cancelled == [WorkerNews(WORKER, "was not needed any more")]
    assert told(bench.greet(), StartWorker) == []


def test_a_worker_that_runs_is_told_to_end_and_ends_when_it_has(bench: Bench) -> None:
    bench.greet()
    bench.start()
    stopping = bench.attendance.stop_worker(ONE.node_id, WORKER)
    assert stopping == [Send(b"one", StopWorker(WORKER))]
    assert news(bench.say(WorkerEnded(WORKER, "was told to end", 1))) == ["was told to end"]
    assert bench.attendance.stop_worker(ONE.node_id, WORKER) == []
    assert bench.attendance.route_worker(ONE.node_id, WORKER, Routes(1)) == []


def test_a_worker_that_is_freed_has_ended_for_this_plan(bench: Bench) -> None:
    free = lambda worker: bench.attendance.free_worker(ONE.node_id, worker)  # noqa: E731
    bench.start(worker="waits")
    assert free("waits") == [WorkerNews("waits", "was not needed any more")]
    bench.greet()
    bench.start()
    assert free(WORKER) == [Send(b"one", FreeWorker(WORKER))]
    assert free(WORKER) == []
    assert bench.attendance.stop_worker(ONE.node_id, WORKER) == []
    # It may have been lost with the connection.
    bench.say(hello(), peer="new")
    again = bench.say(AgentBeat(WALL, (WORKER,)), peer="new")
    assert told(again, FreeWorker, "new") == [FreeWorker(WORKER)]
    assert news(bench.say(WorkerEnded(WORKER, "was freed", 1), peer="new")) == ["was freed"]
    assert news(bench.say(AgentBeat(WALL), peer="new")) == []


def test_what_a_worker_was_told_is_said_again_over_a_new_connection(bench: Bench) -> None:
    bench.greet()
    bench.start()
    bench.start(worker="w2")
    bench.attendance.route_worker(ONE.node_id, WORKER, Routes(1))
    bench.attendance.route_worker(ONE.node_id, WORKER, Routes(2))
    bench.attendance.stop_worker(ONE.node_id, "w2")
    assert told(bench.beat(WORKER, "w2"), CoordinatorBeat) == [CoordinatorBeat(0)]
    bench.say(hello(), peer="new")
    # Not before the beat: what the agent repeats may say that it was done.
    again = bench.say(AgentBeat(WALL, (WORKER, "w2")), peer="new")
    assert told(again, RouteWorker, "new") == [RouteWorker(WORKER, Routes(2))]
    assert told(again, StopWorker, "new") == [StopWorker("w2")]
    assert len(bench.say(AgentBeat(WALL, (WORKER, "w2")), peer="new")) == 1


def test_what_was_done_is_not_asked_again(bench: Bench) -> None:
    bench.greet()
    bench.start()
    bench.attendance.route_worker(ONE.node_id, WORKER, Routes(2))
    bench.say(hello(), peer="new")
    assert news(bench.say(WorkerSaid(WORKER, Routed(2), 1), peer="new")) == [Routed(2)]
    assert len(bench.say(AgentBeat(WALL, (WORKER,)), peer="new")) == 1


def test_routes_of_before_do_not_count_for_later_ones(bench: Bench) -> None:
    bench.greet()
    bench.start()
    bench.attendance.route_worker(ONE.node_id, WORKER, Routes(2))
    bench.say(hello(), peer="new")
    bench.say(WorkerSaid(WORKER, Routed(1), 1), peer="new")
    again = bench.say(AgentBeat(WALL, (WORKER,)), peer="new")
    assert told(again, RouteWorker, "new") == [RouteWorker(WORKER, Routes(2))]


def test_a_worker_that_is_to_end_is_told_nothing_else(bench: Bench) -> None:
    bench.greet()
    bench.start()
    bench.attendance.stop_worker(ONE.node_id, WORKER)
    assert bench.attendance.route_worker(ONE.node_id, WORKER, Routes(1)) == []
    assert bench.attendance.stop_worker(ONE.node_id, WORKER) == []


# Who may


def test_another_version_is_refused_and_told_both(bench: Bench) -> None:
    actions = bench.greet(hello=hello(tbcluster_version="9.9", protocol=7))
    (refused,) = told(actions, Refused)
    mine = f"protocol {RACK_PROTOCOL}.{PROTOCOL_VERSION}"
    for part in ("one", "9.9", f"protocol 7.{PROTOCOL_VERSION}", VERSION, mine):
        assert part in refused.reason
    assert "install the same version" in refused.reason
    assert Told(refused.reason) in actions
    assert told(actions, Welcome) == []
    assert bench.state("one") is NodeState.REFUSED
    assert bench.view("one").refused_because == refused.reason
    assert bench.beat() == []
    again = bench.greet(hello=hello(tbcluster_version="9.9", protocol=7))
    assert again == [Send(b"one", refused)]  # the log has it


@pytest.mark.parametrize("facts", [{"protocol": 7}, {"data_protocol": PROTOCOL_VERSION + 1}])
def test_another_protocol_is_refused_and_another_version_is_not(
    bench: Bench, facts: dict[str, int]
) -> None:
    assert told(bench.greet(hello=hello(**facts)), Refused)
    assert told(bench.greet(hello=hello(tbcluster_version="9.9")), Welcome)
    assert bench.state("one") is NodeState.ONLINE


@pytest.mark.parametrize("theirs", [HelloVersions(RACK_PROTOCOL + 1, VERSION)])
def test_a_greeting_that_is_not_understood_is_refused_alike(
    bench: Bench, theirs: HelloVersions
) -> None:
    actions = bench.attendance.refuse(ONE.public_key, b"one", theirs)
    assert told(actions, Refused)
    assert bench.state("one") is NodeState.REFUSED
    assert bench.attendance.refuse(key_of("nobody"), b"x", theirs) == []


def test_a_node_that_comes_back_with_another_version_has_lost_its_workers(bench: Bench) -> None:
    bench.greet("two", "one")
    bench.start()
    actions = bench.greet("one", hello=hello("second", protocol=7))
    assert news(actions) == ["is on one, which came back with another version"]
    assert NodeDown(ONE.node_id) in actions
    assert peer_names(actions, "two") == []
    actions = bench.greet("one", hello=hello("third"))
    assert NodeUp(ONE.node_id) in actions
    assert bench.view("one").refused_because is None


def test_a_worker_waits_for_a_node_that_is_refused(bench: Bench) -> None:
    bench.greet(hello=hello(protocol=7))
    assert bench.start() == []
    assert len(told(bench.greet(), StartWorker)) == 1


def test_a_strangers_key_gets_nothing(bench: Bench) -> None:
    for message in (hello(), AgentBeat(WALL), WorkerEnded(WORKER, "is gone", 1)):
        (answer,) = bench.say(message, "stranger")
        assert isinstance(answer, Send)
        assert isinstance(answer.message, Refused)
    assert bench.attendance.online() == []
    assert bench.say(AskRack(), "stranger") == []
    assert bench.say(AskRack(), "one") == []


def test_commands_have_the_clusters_key_and_may_ask(bench: Bench) -> None:
    question = AskRack(inspects=True)
    assert bench.say(question, "cluster") == [Asked(b"cluster", question)]
    (answer,) = bench.say(hello(), "cluster")
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Refused)
    assert bench.attendance.online() == []


def test_a_node_that_is_revoked_is_told_so_and_is_out(bench: Bench) -> None:
    bench.greet("two", "one")
    bench.start()
    out = replace(ONE, is_revoked=True)
    actions = bench.attendance.follow([HEAD, out, TWO])
    assert told(actions, Refused)
    assert news(actions) == ["is on one, which was revoked"]
    assert NodeDown(ONE.node_id) in actions
    assert peer_names(actions, "two") == []
    assert bench.state("one") is NodeState.REVOKED
    assert [known.name for known in bench.attendance.members()] == ["head", "two"]
    (answer,) = bench.greet("one")
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Refused)
    assert bench.attendance.refuse(ONE.public_key, b"one", HelloVersions(7, "9.9")) == []
    assert bench.state("one") is NodeState.REVOKED
    assert bench.attendance.follow([HEAD, out, TWO]) == []


def test_a_worker_does_not_wait_for_a_node_that_is_revoked(bench: Bench) -> None:
    bench.start()
    actions = bench.attendance.follow([HEAD, replace(ONE, is_revoked=True), TWO])
    ended = WorkerNews(WORKER, "is on one, which was revoked")
    assert actions == [ended, NodeChanged(ONE.node_id)]
    assert bench.start() == [ended]
    assert bench.attendance.stop_worker(ONE.node_id, WORKER) == []


def test_a_node_that_was_revoked_before_is_never_online() -> None:
    out = replace(ONE, is_revoked=True)
    attendance = Attendance(Coordinator("now", "rack", CLUSTER_KEY, VERSION), [HEAD, out])
    assert [view.state for view in attendance.views(0.0)] == [NodeState.OFFLINE, NodeState.REVOKED]
    (answer,) = attendance.heard(ONE.public_key, b"one", hello(), 0.0, WALL)
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Refused)


def test_members_join_and_are_renamed_while_others_are_there(bench: Bench) -> None:
    bench.greet()
    three = member("three")
    assert bench.attendance.follow([HEAD, replace(ONE, name="mini"), TWO, three]) == []
    assert bench.state("mini") is NodeState.ONLINE
    actions = bench.greet("three")
    assert told(actions, Welcome, "three")[0].node_name == "three"
    assert peer_names(actions, "three") == ["mini"]


# What else is said


def test_links_are_passed_on_with_their_source(bench: Bench) -> None:
    bench.greet()
    for message in (Measured(TWO.node_id, ()), PathsSeen(TWO.node_id, (), ("192.0.2.2",))):
        assert bench.say(message) == [LinkNews(ONE.node_id, message)]


def test_only_those_who_are_there_are_asked(bench: Bench) -> None:
    bench.greet("one", "two")
    bench.now += LEASE_S
    bench.beat(name="one")
    bench.pass_time(1.0)
    assert bench.attendance.inspect_all() == [Send(b"one", Inspect())]
    measure = Measure(TWO.node_id)
    assert bench.attendance.send_to(ONE.node_id, measure) == [Send(b"one", measure)]
    assert bench.attendance.send_to(TWO.node_id, measure) == []


def test_the_spec_is_made_anew_for_each_hello(bench: Bench) -> None:
    made: list[Hello] = []

    def make_spec(said: Hello) -> StageSpec:
        made.append(said)
        return SPEC

    bench.attendance.start_worker(ONE.node_id, WORKER, make_spec, bench.now)
    assert made == []
    late = hello("second", run_dir="/run/second")
    bench.greet(hello=late)
    assert made == [late]
