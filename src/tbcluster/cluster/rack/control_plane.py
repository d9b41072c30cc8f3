"""The thread that speaks with the agents: performs what `Attendance` and `MeasureQueue` decide."""

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import version
from typing import assert_never

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
from tbcluster.cluster.rack.answering import Answering
from tbcluster.cluster.rack.attendance import Attendance, Coordinator
from tbcluster.cluster.rack.awake_clock import AwakeClock
from tbcluster.cluster.rack.link_book import LinkBook
from tbcluster.cluster.rack.link_keeper import LinkKeeper
from tbcluster.cluster.trust.identity import HeadIdentity
from tbcluster.cluster.trust.members import MemberRing
from tbcluster.errors import RackError, WireError
from tbcluster.machine import NodeView, PathMeasurement, RackView, Serving
from tbcluster.transport.control import Arrival, ControlServer
from tbcluster.transport.curve import Guard
from tbcluster.transport.drops import Drops
from tbcluster.wire.control import Report, Routes
from tbcluster.wire.rack import (
    MAX_MESSAGE_BYTES,
    AskRack,
    FromCoordinator,
    Goodbye,
    Hello,
    Measured,
    PathsSeen,
    RackAnswer,
    Refused,
    WorkerStarted,
    decode_from_agent,
    decode_hello_versions,
    encode_message,
)
from tbcluster.wire.tensors import Buffer

logger = logging.getLogger(__name__)

TICK_S = 0.1
# What was said last has so long to leave the machine.
LINGER_S = 0.2
OnWorkerNews = Callable[[Report | WorkerStarted | str], None]

CLOSED = "the rack was closed: models run on it inside `with tbcluster.Rack() as rack:` only"


class ControlPlane:
    """Keeps in touch with all nodes.

    Args:
        head: Whose keys and port it has.
        members: Who may connect.
        links: What is known of the links; it is kept up to date.
        addresses: Where agents can reach this node, for them to remember.

    Raises:
        RackError: The control port is in use.
    """

    def __init__(
        self,
        head: HeadIdentity,
        members: MemberRing,
        links: LinkBook,
        addresses: tuple[str, ...] = (),
        save_links: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self._head = head
        self._ring = members
        self._links = links
        me = Coordinator(
            secrets.token_hex(8),
            head.cluster_name,
            head.keys.public,
            version("tbcluster"),
            addresses,
        )
        self._members = members.members()
        self._attendance = Attendance(me, self._members)
        self._clock = AwakeClock()
        self._link_keeper = LinkKeeper(links, self._attendance, save_links)
        self._workers: dict[str, OnWorkerNews] = {}
        self._drops = Drops("the control plane")
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._watchers: list[Callable[[], None]] = []
        self._node_watchers: list[Callable[[], None]] = []
        self.describe: Callable[[], Serving | None] = lambda: None
        # Why a node of this name cannot be drained.
        self.may_drain: Callable[[str], str | None] = lambda _: None
        self._answering = Answering(
            head,
            self._attendance,
            links,
            self._link_keeper,
            nodes=self.nodes,
            describe=lambda: self.describe(),
            may_drain=lambda name: self.may_drain(name),
            perform=self._perform,
            post=self._post,
        )
        self._goodbye = Goodbye()
        self._changed = threading.Condition()
        self._is_closed = False
        guard = Guard(head.keys, self._may_connect)
        self._server = ControlServer(
            f"tcp://*:{head.control_port}", guard, max_message_bytes=MAX_MESSAGE_BYTES
        )
        self._thread = threading.Thread(target=self._run, name="tbcluster-control", daemon=True)
        self._thread.start()

    def close(self, *, keeps_workers: bool = False) -> None:
        """Stop, and have the agents end what they run.

        Args:
            keeps_workers: They keep it for a while instead: another coordinator follows.
        """
        self._goodbye = Goodbye(keeps_workers)
        self._post(self._stop)
        self._thread.join()

    # Any thread

    @property
    def has_workers(self) -> bool:
        """Whether any worker that was started has not ended yet."""
        return bool(self._workers)

    def start_worker(
        self, node_id: str, worker_id: str, make_spec: MakeSpec, on_news: OnWorkerNews
    ) -> None:
        """Start a worker, or do so when its node is there. `on_news` hears what it says, last a
        text with how it ended.

        Raises:
            RackError: The control plane was closed.
        """
        # First: who is on this list when the thread ends is told by it.
        self._workers[worker_id] = on_news
        if self._is_closed:
            raise RackError(CLOSED)

        def start() -> None:
            self._perform(
                self._attendance.start_worker(node_id, worker_id, make_spec, self._clock.now)
            )

        self._post(start)

    def route_worker(self, node_id: str, worker_id: str, routes: Routes) -> None:
        """Tell a worker where its messages go."""
        self._post(lambda: self._perform(self._attendance.route_worker(node_id, worker_id, routes)))

    def stop_worker(self, node_id: str, worker_id: str) -> None:
        """End a worker."""
        self._post(lambda: self._perform(self._attendance.stop_worker(node_id, worker_id)))

    def free_worker(self, node_id: str, worker_id: str) -> None:
        """End a worker for this plan; its agent keeps its weights for a while, and gives it to a
        stage of the same shard that is started there meanwhile."""
        self._post(lambda: self._perform(self._attendance.free_worker(node_id, worker_id)))

    def follow(self, on_change: Callable[[], None]) -> None:
        """Have `on_change` called in this object's thread whenever ways open or close."""
        self._post(lambda: self._watchers.append(on_change))

    def unfollow(self, on_change: Callable[[], None]) -> None:
        """Do not call it any more."""
        self._post(lambda: self._watchers.remove(on_change))

    def follow_nodes(self, on_change: Callable[[], None]) -> None:
        """Have `on_change` called in this object's thread whenever a node comes, goes, is revoked,
        drained or taken back."""
        self._post(lambda: self._node_watchers.append(on_change))

    def unfollow_nodes(self, on_change: Callable[[], None]) -> None:
        """Do not call it any more."""
        self._post(lambda: self._node_watchers.remove(on_change))

    def hello(self, node_id: str) -> Hello | None:
        """What a node said of itself, if it is online."""
        return self._attendance.hello(node_id)

    def name_of(self, node_id: str) -> str:
        """What a node is called now."""
        names = (one.name for one in self._ring.members() if one.node_id == node_id)
        return next(names, node_id)

    def is_revoked(self, node_id: str) -> bool:
        """Whether a node may not take part any more."""
        return any(one.is_revoked for one in self._ring.members() if one.node_id == node_id)

    def online(self) -> list[str]:
        """Ids of the nodes that are there."""
        return self._attendance.online()

    def usable(self) -> list[str]:
        """Ids of those that can be given stages: none that is drained."""
        return self._attendance.usable()

    def addresses(self, source: str, target: str) -> tuple[str, ...]:
        """Where a node can reach another one now, best first; none if it cannot."""
        return self._links.addresses((source, target))

    def best_path(self, source: str, target: str) -> PathMeasurement:
        """Raises: NoPathError when no address of the target answers now."""
        return self._links.best((source, target))

    def is_alive(self, source: str, target: str, address: str) -> bool:
        """Whether an address of the target is not known to be dead."""
        return self._links.is_alive((source, target), address)

    def wait_for(
        self, is_enough: Callable[[list[NodeView]], bool], timeout_s: float | None = None
    ) -> bool:
        """Wait until the nodes are as wanted and the links between them are measured.

        Returns:
            Whether they are; False when the time is up.

        Raises:
            RackError: The control plane was closed.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._is_well(is_enough), timeout_s)

    def nodes(self) -> list[NodeView]:
        """All nodes."""
        return self._attendance.views(self._clock.now)

    def view(self) -> RackView:
        """Everything there is to know."""
        return self._answering.view()

    def ask(self, question: AskRack) -> RackView:
        """The same after the nodes have looked, and measured, anew.

        Raises:
            RackError: The control plane was closed, or the node that it names cannot be drained.
        """
        answers: queue.SimpleQueue[RackView | str] = queue.SimpleQueue()
        self._post(lambda: self._answering.ask(question, answers.put, answers.put))
        while self._thread.is_alive():
            with suppress(queue.Empty):
                answer = answers.get(timeout=TICK_S)
                if isinstance(answer, str):
                    raise RackError(answer)
                return answer
        raise RackError(CLOSED)

    # This object's thread

    def _run(self) -> None:
        try:
            while not self._is_closed:
                self._turn()
        except Exception:  # the top loop: whoever waits must not wait for it for ever
            logger.exception("the control plane failed")
            self._is_closed = True
        finally:
            self._server.close(LINGER_S)
            self._notify()
            for on_news in list(self._workers.values()):
                on_news("is out of reach: the rack was closed")

    def _turn(self) -> None:
        arrival = self._server.receive(TICK_S)
        awake = self._clock.turn()
        # First: the sender may have joined while nothing was heard.
        members = self._ring.members()
        if members != self._members:
            self._members = members
            self._perform(self._attendance.follow(members))
        while not self._inbox.empty():
            self._inbox.get()()
        if arrival is not None:
            self._perform(self._understood(arrival))
        self._perform(self._attendance.tick(awake))
        now = time.monotonic()
        self._perform(self._link_keeper.due(now))
        self._answering.due(now)

    def _understood(self, arrival: Arrival) -> list[Action]:
        frame = arrival.frames[0] if len(arrival.frames) == 1 else b""
        try:
            message = decode_from_agent(frame)
        except WireError as error:
            return self._not_understood(arrival, frame, error)
        return self._attendance.heard(
            arrival.key, arrival.peer, message, self._clock.now, time.time()
        )

    def _not_understood(self, arrival: Arrival, frame: Buffer, error: WireError) -> list[Action]:
        """Another version's greeting is answered with both versions; the rest is dropped."""
        versions = decode_hello_versions(frame)
        if versions is None:
            self._drops.count(error)
            return []
        return self._attendance.refuse(arrival.key, arrival.peer, versions)

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(peer=peer, message=message):
                    self._send(peer, message)
                case WorkerNews(worker_id=worker_id, news=news):
                    self._pass_on(worker_id, news)
                case NodeUp(node_id=node_id):
                    self._perform(self._link_keeper.came(node_id))
                    self._tell_node_watchers()
                case NodeReconnected(node_id=node_id):
                    self._link_keeper.reconnected(node_id)
                case NodeDown(node_id=node_id):
                    self._link_keeper.gone(node_id)
                    self._answering.looked(node_id)
                    self._tell_node_watchers()
                case NodeChanged():
                    self._tell_node_watchers()
                case LinkNews(source=source, news=news):
                    self._note_link(source, news)
                case Looked(node_id=node_id):
                    self._answering.looked(node_id)
                    self._link_keeper.measure(node_id)
                case Asked(peer=peer, question=question):
                    self._asked(peer, question)
                case Told(text=text):
                    logger.warning("%s", text)
                case _:
                    assert_never(action)
        self._notify()

    def _pass_on(self, worker_id: str, news: Report | WorkerStarted | str) -> None:
        on_news = self._workers.get(worker_id)
        if isinstance(news, str):
            self._workers.pop(worker_id, None)
        if on_news is not None:
            on_news(news)

    def _note_link(self, source: str, news: Measured | PathsSeen) -> None:
        if any(member.node_id == news.peer_id for member in self._members):
            self._link_keeper.heard(source, news)
            for on_change in self._watchers:
                on_change()

    def _tell_node_watchers(self) -> None:
        for on_change in self._node_watchers:
            on_change()

    def _asked(self, peer: bytes, question: AskRack) -> None:
        self._answering.ask(
            question,
            lambda view: self._send(peer, RackAnswer(view)),
            lambda why: self._send(peer, Refused(why)),
        )

    def _send(self, peer: bytes, message: FromCoordinator) -> None:
        self._server.send(peer, [encode_message(message)])

    def _may_connect(self, public_key: str) -> bool:
        return public_key == self._head.keys.public or self._ring.allows(public_key)

    def _is_well(self, is_enough: Callable[[list[NodeView]], bool]) -> bool:
        if self._is_closed:
            raise RackError(CLOSED)
        return is_enough(self.nodes()) and not self._link_keeper.is_busy()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.put(action)
        self._server.wake()

    def _stop(self) -> None:
        for node_id in self._attendance.online():
            self._perform(self._attendance.send_to(node_id, self._goodbye))
        self._is_closed = True
