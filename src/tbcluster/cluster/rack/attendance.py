"""Who is there and what they run. Pure: what agents say comes in with its time, actions go out.

A node is online from its `Hello` until nothing was heard of it for a lease. Its workers are gone
when it says so, when it comes back as another incarnation, and when its lease has run out: what it
still runs when it comes back is free for another plan.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from tbcluster.cluster.rack.actions import (
    Action,
    Asked,
    LinkNews,
    Looked,
    MakeSpec,
    NodeChanged,
    NodeDown,
    NodeReconnected,
    NodeUp,
    Send,
    Told,
    WorkerNews,
)
from tbcluster.cluster.rack.node_workers import NodeWorkers, OfWorker, Order
from tbcluster.cluster.trust.roster import Member
from tbcluster.machine import Gauges, Machine, NodeState, NodeView
from tbcluster.wire.control import Routes
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
    Measured,
    PathsSeen,
    Peer,
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

BEAT_S = 0.5
LEASE_S = 3.0


@dataclass(slots=True)
class _Node:
    member: Member
    state: NodeState = NodeState.OFFLINE
    peer: bytes = b""
    hello: Hello | None = None
    heard_at: float | None = None
    clock_offset_s: float | None = None
    gauges: Gauges | None = None
    refused_because: str | None = None
    workers: NodeWorkers = field(default_factory=NodeWorkers)


@dataclass(frozen=True, slots=True)
class Coordinator:
    """Who the agents are talking to."""

    incarnation: str
    cluster_name: str
    public_key: str
    tbcluster_version: str
    addresses: tuple[str, ...] = ()


class Attendance:
    """All members of the cluster, and what is known of each."""

    def __init__(self, coordinator: Coordinator, members: Iterable[Member]) -> None:
        self._coordinator = coordinator
        self._versions = HelloVersions(
            RACK_PROTOCOL, coordinator.tbcluster_version, PROTOCOL_VERSION
        )
        self._nodes = {member.node_id: _new_node(member) for member in members}

    # What is heard

    def heard(
        self, key: str, peer: bytes, message: FromAgent, now: float, wall: float
    ) -> list[Action]:
        """A message came.

        Args:
            key: Public key of the connection that it came over.
            now, wall: Seconds, monotonic and Unix.
        """
        if isinstance(message, AskRack):
            is_command = key == self._coordinator.public_key
            return [Asked(peer, message)] if is_command else []
        node = self._by_key(key)
        if node is None or node.member.is_revoked:
            return [Send(peer, Refused("this node was revoked: join again with a new token"))]
        node.heard_at = now
        if isinstance(message, Hello):
            return self._greet(node, peer, message, now)
        if node.state is not NodeState.ONLINE or peer != node.peer:
            # It was given up, or met another coordinator at this address, or speaks over a
            # connection that it has replaced, where nothing reaches it.
            is_expected = node.state is not NodeState.REFUSED
            return [Send(peer, WhoAreYou())] if is_expected else []
        return self._listen(node, message, now, wall)

    def refuse(self, key: str, peer: bytes, theirs: HelloVersions) -> list[Action]:
        """A greeting came of which no more than its versions can be read."""
        node = self._by_key(key)
        return [] if node is None or node.member.is_revoked else self._refuse(node, peer, theirs)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        actions: list[Action] = []
        for node in self._online():
            if node.heard_at is None or now - node.heard_at > LEASE_S:
                actions += self._lose(node, "does not answer any more")
        return actions

    def follow(self, members: Iterable[Member]) -> list[Action]:
        """The list of members has changed."""
        actions: list[Action] = []
        for member in members:
            node = self._nodes.setdefault(member.node_id, _new_node(member))
            before, node.member = node.member, member
            if member.is_revoked and node.state is not NodeState.REVOKED:
                actions += self._revoke(node)
            if (before.is_revoked, before.is_drained) != (member.is_revoked, member.is_drained):
                actions.append(NodeChanged(member.node_id))
        return actions

    # What is asked of them

    def start_worker(
        self, node_id: str, worker_id: str, make_spec: MakeSpec, now: float
    ) -> list[Action]:
        """Start a worker, or do so when the node comes back."""
        node = self._nodes[node_id]
        if node.state is NodeState.REVOKED:
            return _ended([worker_id], node, "was revoked")
        if node.state is not NodeState.ONLINE or node.hello is None:
            node.workers.wait(worker_id, make_spec)
            return []
        node.workers.start(worker_id, now)
        return [Send(node.peer, StartWorker(worker_id, make_spec(node.hello)))]

    def route_worker(self, node_id: str, worker_id: str, routes: Routes) -> list[Action]:
        """Tell a worker where its messages go."""
        return self._order(node_id, RouteWorker(worker_id, routes))

    def stop_worker(self, node_id: str, worker_id: str) -> list[Action]:
        """End a worker, or forget that it was to be started."""
        return self._let_go(node_id, StopWorker(worker_id))

    def free_worker(self, node_id: str, worker_id: str) -> list[Action]:
        """The same, but its agent keeps its weights for another plan."""
        return self._let_go(node_id, FreeWorker(worker_id))

    def inspect_all(self) -> list[Action]:
        """Have all nodes look at their machines anew."""
        return [Send(node.peer, Inspect()) for node in self._online()]

    def send_to(self, node_id: str, message: FromCoordinator) -> list[Action]:
        """A message to a node, if it is online."""
        node = self._nodes[node_id]
        return [Send(node.peer, message)] if node.state is NodeState.ONLINE else []

    # Facts

    def members(self) -> list[Member]:
        """All nodes that may take part."""
        return [node.member for node in self._nodes.values() if not node.member.is_revoked]

    def online(self) -> list[str]:
        """Ids of the nodes that are there."""
        return [node.member.node_id for node in self._online()]

    def usable(self) -> list[str]:
        """Ids of those that can be given stages."""
        members = [node.member for node in self._online()]
        return [member.node_id for member in members if not member.is_drained]

    def hello(self, node_id: str) -> Hello | None:
        """What a node said of itself, if it is online."""
        node = self._nodes.get(node_id)
        return node.hello if node is not None and node.state is NodeState.ONLINE else None

    def views(self, now: float) -> list[NodeView]:
        """All nodes, for people and programs."""
        return [
            NodeView(
                node_id=node.member.node_id,
                name=node.member.name,
                state=node.state,
                is_head=node.member.is_head,
                machine=node.hello.machine if node.hello is not None else None,
                seconds_since_heard=None if node.heard_at is None else now - node.heard_at,
                clock_offset_s=node.clock_offset_s,
                refused_because=node.refused_because,
                is_drained=node.member.is_drained,
                gauges=node.gauges if node.state is NodeState.ONLINE else None,
            )
            for node in list(self._nodes.values())
        ]

    # How

    def _greet(self, node: _Node, peer: bytes, hello: Hello, now: float) -> list[Action]:
        versions = HelloVersions(hello.protocol, hello.tbcluster_version, hello.data_protocol)
        if not self._understands(versions):
            return self._refuse(node, peer, versions)
        actions: list[Action] = []
        if node.hello is not None and node.hello.incarnation != hello.incarnation:
            actions += self._lose(node, "was started again")
            node.workers.begin()
        was_online, is_elsewhere = node.state is NodeState.ONLINE, node.peer != peer
        node.state, node.peer, node.hello = NodeState.ONLINE, peer, hello
        node.refused_because = None
        me = self._coordinator
        welcome = Welcome(me.incarnation, me.cluster_name, node.member.name, me.addresses)
        actions.append(Send(peer, welcome))
        actions += self._introduce()
        if not was_online:
            actions += [NodeUp(node.member.node_id), Told(f"{node.member.name} is online")]
        elif is_elsewhere:
            actions.append(NodeReconnected(node.member.node_id))
        # First: what is to be started may take one of these over.
        actions += [Send(peer, FreeWorker(worker_id)) for worker_id in node.workers.take_lost()]
        for worker_id, make_spec in node.workers.waiting().items():
            node.workers.start(worker_id, now)
            actions.append(Send(peer, StartWorker(worker_id, make_spec(hello))))
        return actions

    def _understands(self, theirs: HelloVersions) -> bool:
        """Versions of tbcluster may differ where what they say to each other does not."""
        mine = self._versions
        return (theirs.protocol, theirs.data_protocol) == (mine.protocol, mine.data_protocol)

    def _refuse(self, node: _Node, peer: bytes, theirs: HelloVersions) -> list[Action]:
        mine = self._versions
        problem = (
            f"{node.member.name} runs tbcluster {_words(theirs)}, the head node "
            f"{_words(mine)}: install the same version on both"
        )
        actions = self._lose(node, "came back with another version")
        was_known = node.refused_because == problem
        node.state, node.refused_because = NodeState.REFUSED, problem
        actions.append(Send(peer, Refused(problem)))
        return actions if was_known else [*actions, Told(problem)]

    def _listen(self, node: _Node, message: FromAgent, now: float, wall: float) -> list[Action]:
        match message:
            case AgentBeat():
                node.clock_offset_s = message.time - wall
                node.gauges = message.gauges
                answer = Send(node.peer, CoordinatorBeat(node.workers.heard_serial))
                return [answer, *self._reconcile(node, message, now)]
            case WorkerSaid() | WorkerStarted() | WorkerEnded():
                return self._hear_of_worker(node, message)
            case Inspected(machine=machine):
                return self._inspected(node, machine)
            case Measured() | PathsSeen():
                return [LinkNews(node.member.node_id, message)]
            case Hello() | AskRack():
                return []
            case _:
                assert_never(message)

    def _hear_of_worker(self, node: _Node, message: OfWorker) -> list[Action]:
        news = node.workers.heard(message)
        return [] if news is None else [WorkerNews(message.worker_id, news)]

    def _reconcile(self, node: _Node, beat: AgentBeat, now: float) -> list[Action]:
        """What the agent runs, beside what it is to run."""
        orders = node.workers.orders(beat, node.peer)
        what = f"was lost on {node.member.name}"
        return [
            *(Send(node.peer, order) for order in orders),
            *(WorkerNews(worker_id, what) for worker_id in node.workers.missed(beat, now)),
        ]

    def _inspected(self, node: _Node, machine: Machine) -> list[Action]:
        looked: list[Action] = [Looked(node.member.node_id)]
        if node.hello is None:
            return looked
        moved = node.hello.machine.interfaces != machine.interfaces
        node.hello = msgspec.structs.replace(node.hello, machine=machine)
        return [*looked, *self._introduce()] if moved else looked

    def _lose(self, node: _Node, why: str) -> list[Action]:
        """A node that was online cannot be used any more."""
        if node.state is not NodeState.ONLINE:
            return []
        node.state, node.gauges = NodeState.OFFLINE, None
        actions = _ended(node.workers.lose(), node, why)
        actions += [NodeDown(node.member.node_id), Told(f"{node.member.name} {why}")]
        return [*actions, *self._introduce()]

    def _revoke(self, node: _Node) -> list[Action]:
        why = "was revoked"
        actions: list[Action] = [Send(node.peer, Refused(f"this node {why}"))] if node.peer else []
        actions += [*self._lose(node, why), *_ended(node.workers.waiting(), node, why)]
        node.state = NodeState.REVOKED
        return actions

    def _introduce(self) -> list[Action]:
        """Tell every node who else is there."""
        online = list(self._online())
        return [
            Send(node.peer, Peers(tuple(_peer(other) for other in online if other is not node)))
            for node in online
        ]

    def _let_go(self, node_id: str, order: StopWorker | FreeWorker) -> list[Action]:
        if self._nodes[node_id].workers.cancel(order.worker_id):
            return [WorkerNews(order.worker_id, "was not needed any more")]
        return self._order(node_id, order)

    def _order(self, node_id: str, order: Order) -> list[Action]:
        node = self._nodes[node_id]
        return [Send(node.peer, order)] if node.workers.order(order, node.peer) else []

    def _online(self) -> list[_Node]:
        # A copy: other threads look while members come.
        return [node for node in list(self._nodes.values()) if node.state is NodeState.ONLINE]

    def _by_key(self, key: str) -> _Node | None:
        found = (node for node in self._nodes.values() if node.member.public_key == key)
        return next(found, None)


def _new_node(member: Member) -> _Node:
    return _Node(member, NodeState.REVOKED if member.is_revoked else NodeState.OFFLINE)


def _ended(workers: Iterable[str], node: _Node, why: str) -> list[Action]:
    what = f"is on {node.member.name}, which {why}"
    return [WorkerNews(worker_id, what) for worker_id in workers]


def _peer(node: _Node) -> Peer:
    hello, member = node.hello, node.member
    assert hello is not None  # noqa: S101 - it is online
    return Peer(
        member.node_id,
        member.name,
        member.public_key,
        hello.probe_port,
        hello.machine.interfaces,
        hello.certificate,
    )


def _words(versions: HelloVersions) -> str:
    protocols = f"{versions.protocol}.{versions.data_protocol}"
    return f"{versions.tbcluster_version} (protocol {protocols})"
