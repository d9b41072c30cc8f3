"""Whatever agents say, in any order and over any connection: what holds of the attendance always.

An agent here says anything at any time: it repeats itself, leaves things out, names workers of
other nodes, and speaks over connections that it has replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from tbcluster.cluster.rack.actions import (
    Action,
    LinkNews,
    NodeChanged,
    NodeDown,
    NodeUp,
    Send,
    WorkerNews,
)
from tbcluster.cluster.rack.attendance import LEASE_S, Attendance, Coordinator
from tbcluster.cluster.trust import Member
from tbcluster.machine import NodeState
from tbcluster.wire.control import Ready, Routed, Routes
from tbcluster.wire.rack import (
    AgentBeat,
    CoordinatorBeat,
    FreeWorker,
    FromAgent,
    HelloVersions,
    Inspected,
    Measured,
    Peers,
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

NAMES = ("head", "one", "two")
LATE = "late"  # joins while the others are there
SPEC = stage_spec()
WALL = 1.8e9

Names = st.sampled_from([*NAMES, LATE])
ANY_WORKER = ["w0", "w1", "w2", "unknown"]


@dataclass
class Agent:
    """What the test knows of a node: who it is, and the connection it greeted over last."""

    member: Member
    incarnation: int = 0
    connection: int = 0
    serial: int = 0
    is_member: bool = True
    heard: list[int] = field(default_factory=list)

    @property
    def peer(self) -> bytes:
        return f"{self.member.name}/{self.connection}".encode()


@dataclass
class Worker:
    """What the test knows of a worker: where it belongs and what was heard of it."""

    node_id: str
    num_starts: int = 0
    ends: list[str] = field(default_factory=list)


class AttendanceMachine(RuleBasedStateMachine):
    """Nodes that come, go, speak and fall silent; workers that are started on them."""

    def __init__(self) -> None:
        super().__init__()
        self.agents = {name: Agent(member(name, is_head=name == "head")) for name in NAMES}
        self.agents[LATE] = Agent(member(LATE), is_member=False)
        self.by_id = {agent.member.node_id: agent for agent in self.agents.values()}
        self.workers: dict[str, Worker] = {}
        self.now = 0.0
        self.up: set[str] = set()
        # The nodes that each connection was told of last.
        self.introduced: dict[bytes, list[str]] = {}
        me = Coordinator("now", "rack", key_of("cluster"), VERSION)
        self.attendance = Attendance(me, self.members())

    def members(self) -> list[Member]:
        return [agent.member for agent in self.agents.values() if agent.is_member]

    # What happens

    @rule(name=Names, is_new=st.booleans(), is_reconnected=st.booleans())
    def greet(self, name: str, is_new: bool, is_reconnected: bool) -> None:
        agent = self.agents[name]
        agent.connection += is_reconnected
        if is_new or not agent.incarnation:
            agent.incarnation += 1
            agent.serial = 0
            agent.heard = []
        actions = self.hear(name, hello(str(agent.incarnation)))
        if name in self.usable():
            first = next(action for action in actions if isinstance(action, Send))
            welcomed = [a for a in actions if isinstance(a, Send) and a.peer == agent.peer]
            assert isinstance(welcomed[0].message, Welcome), first

    @rule(name=Names, is_readable=st.booleans())
    def greet_from_another_version(self, name: str, is_readable: bool) -> None:
        agent = self.agents[name]
        agent.connection += 1
        if is_readable:
            self.hear(name, hello("other", protocol=7))
        else:
            versions = HelloVersions(7, "9.9")
            refused = self.attendance.refuse(agent.member.public_key, agent.peer, versions)
            self.follow(refused, None)
        assert agent.member.node_id not in self.attendance.online()

    @rule(name=Names, data=st.data(), is_over_old=st.booleans())
    def beat(self, name: str, data: st.DataObject, is_over_old: bool) -> None:
        mine = [
            worker_id
            for worker_id, worker in self.workers.items()
            if worker.node_id == self.agents[name].member.node_id
        ]
        running = data.draw(st.one_of(st.just(set(mine)), st.sets(st.sampled_from(ANY_WORKER))))
        actions = self.hear(name, AgentBeat(WALL, tuple(sorted(running))), is_over_old)
        for action in actions:
            if isinstance(action, Send) and isinstance(action.message, CoordinatorBeat):
                heard = self.agents[name].heard
                assert not heard or action.message.heard >= heard[-1]
                heard.append(action.message.heard)

    @precondition(lambda self: self.workers)
    @rule(
        stranger=st.one_of(st.none(), st.none(), Names),
        data=st.data(),
        kind=st.sampled_from(["said", "routed", "started", "ended"]),
        skipped=st.sampled_from([0, 0, 0, 0, -1, 1, 7]),
        is_over_old=st.sampled_from([False, False, True]),
    )
    def speak_of_a_worker(
        self, stranger: str | None, data: st.DataObject, kind: str, skipped: int, is_over_old: bool
    ) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.workers)))
        name = stranger or self.by_id[self.workers[worker_id].node_id].member.name
        agent = self.agents[name]
        serial = agent.serial + 1 + skipped
        # What is not heard is said again.
        is_heard = not skipped and not is_over_old and name in self.usable()
        agent.serial += is_heard
        made: dict[str, FromAgent] = {
            "said": WorkerSaid(worker_id, Ready(1, "CPU"), serial),
            "routed": WorkerSaid(worker_id, Routed(1), serial),
            "started": WorkerStarted(worker_id, 42, serial),
            "ended": WorkerEnded(worker_id, "was ended", serial),
        }
        actions = self.hear(name, made[kind], is_over_old)
        news = [action for action in actions if isinstance(action, WorkerNews)]
        assert {one.worker_id for one in news} <= {worker_id}
        if news:
            # Nobody speaks for another node's workers, or over a connection it has replaced.
            assert self.workers[worker_id].node_id == agent.member.node_id
            assert is_heard

    @rule(name=Names, data=st.data())
    def look(self, name: str, data: st.DataObject) -> None:
        ip = data.draw(st.sampled_from(["192.0.2.1", "192.0.2.2"]))
        self.hear(name, Inspected(hello(interfaces=[interface("en0", ip)]).machine))

    @rule(name=Names, other=Names)
    def measure(self, name: str, other: str) -> None:
        message = Measured(self.agents[other].member.node_id, ())
        actions = self.hear(name, message)
        if name in self.usable():
            assert actions == [LinkNews(self.agents[name].member.node_id, message)]

    @rule(seconds=st.sampled_from([0.1, 0.1, 0.5, 0.5, 1.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.follow(self.attendance.tick(self.now), None)

    @rule(name=st.sampled_from(NAMES))
    def start(self, name: str) -> None:
        worker_id = f"w{len(self.workers)}"
        node_id = self.agents[name].member.node_id
        self.workers[worker_id] = Worker(node_id)
        make = lambda said: replace(SPEC, run_dir=said.run_dir)  # noqa: E731
        actions = self.attendance.start_worker(node_id, worker_id, make, self.now)
        self.follow(actions, worker_id)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), kind=st.sampled_from(["route", "stop", "free"]))
    def order(self, data: st.DataObject, kind: str) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.workers)))
        worker = self.workers[worker_id]
        node_id = worker.node_id
        if kind == "route":
            self.follow(self.attendance.route_worker(node_id, worker_id, Routes(1)), worker_id)
        else:
            is_free = kind == "free"
            let_go = self.attendance.free_worker if is_free else self.attendance.stop_worker
            self.follow(let_go(node_id, worker_id), worker_id)
            # One that was not started yet is over at once.
            assert worker.num_starts or worker.ends

    @rule(name=st.sampled_from(["one", "two"]))
    def revoke(self, name: str) -> None:
        agent = self.agents[name]
        agent.member = replace(agent.member, is_revoked=True)
        self.follow(self.attendance.follow(self.members()), None)
        assert agent.member.node_id not in self.attendance.online()
        for worker in self.workers.values():
            if worker.node_id == agent.member.node_id:
                assert len(worker.ends) == 1

    @rule(name=st.sampled_from(NAMES), is_drained=st.booleans())
    def drain(self, name: str, is_drained: bool) -> None:
        agent = self.agents[name]
        is_change = agent.member.is_drained != is_drained
        agent.member = replace(agent.member, is_drained=is_drained)
        actions = self.attendance.follow(self.members())
        assert actions == ([NodeChanged(agent.member.node_id)] if is_change else [])

    @rule()
    def join(self) -> None:
        self.agents[LATE].is_member = True
        self.follow(self.attendance.follow(self.members()), None)

    # What holds

    @invariant()
    def who_was_told_to_be_up_is_online(self) -> None:
        assert self.up == set(self.attendance.online())
        views = self.attendance.views(self.now)
        assert {v.node_id for v in views if v.state is NodeState.ONLINE} == self.up
        drained = {key for key, agent in self.by_id.items() if agent.member.is_drained}
        assert set(self.attendance.usable()) == self.up - drained
        for view in views:
            is_revoked = self.by_id[view.node_id].member.is_revoked
            assert (view.state is NodeState.REVOKED) == is_revoked
            assert (self.attendance.hello(view.node_id) is not None) == (view.node_id in self.up)

    @invariant()
    def who_is_online_knows_all_others_who_are(self) -> None:
        for node_id in self.up:
            assert self.introduced[self.by_id[node_id].peer] == sorted(self.up - {node_id})

    def teardown(self) -> None:
        for seconds in (LEASE_S / 2, LEASE_S):
            self.now += seconds
            self.follow(self.attendance.tick(self.now), None)
        assert self.attendance.online() == []
        for worker in self.workers.values():
            # Those that were never started may still be, or ended without.
            assert len(worker.ends) == 1 if worker.num_starts else len(worker.ends) <= 1

    # How

    def usable(self) -> list[str]:
        """Names of those that are online."""
        return [self.by_id[node_id].member.name for node_id in self.attendance.online()]

    def hear(self, name: str, message: FromAgent, is_over_old: bool = False) -> Sequence[Action]:
        agent = self.agents[name]
        peer = b"replaced" if is_over_old else agent.peer
        key = agent.member.public_key
        actions = self.attendance.heard(key, peer, message, self.now, WALL)
        self.follow(actions, None)
        return actions

    def follow(self, actions: Sequence[Action], worker_id: str | None) -> None:
        """Check all actions; `worker_id` is the only worker they may concern, if there is one."""
        for action in actions:
            match action:
                case NodeUp(node_id=node_id):
                    assert node_id not in self.up
                    self.up.add(node_id)
                case NodeDown(node_id=node_id):
                    self.up.remove(node_id)
                case WorkerNews(worker_id=told, news=news):
                    assert worker_id in (None, told)
                    worker = self.workers[told]
                    assert not worker.ends, f"{news} of one that has ended: {worker.ends}"
                    if isinstance(news, str):
                        worker.ends.append(news)
                    else:
                        assert worker.num_starts == 1
                case Send(peer=peer, message=message):
                    self.follow_message(peer, message, set(self.attendance.online()))

    def follow_message(self, peer: bytes, message: object, online: set[str]) -> None:
        is_to: Callable[[str], bool] = lambda node_id: (  # noqa: E731
            node_id in online and self.by_id[node_id].peer == peer
        )
        match message:
            case StartWorker(worker_id=worker_id):
                worker = self.workers[worker_id]
                assert is_to(worker.node_id)
                assert not worker.ends
                worker.num_starts += 1
                assert worker.num_starts == 1
            case RouteWorker(worker_id=worker_id):
                assert is_to(self.workers[worker_id].node_id)
                assert not self.workers[worker_id].ends
            case StopWorker() | FreeWorker():
                assert any(map(is_to, online))
            case WhoAreYou():
                assert not any(map(is_to, online))
            case Peers(peers=peers):
                self.introduced[peer] = sorted(known.node_id for known in peers)


AttendanceMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestAttendance = AttendanceMachine.TestCase
