"""The agent's own thread: performs what the state machine asks for, and what the coordinator says.

What takes time is done in other threads, which post what they have to tell.
"""

import logging
import os
import random
import secrets
import time
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import assert_never

from tbcluster.cluster.agent.connection import (
    Action,
    Beat,
    Connect,
    Connection,
    Disconnect,
    Greet,
    Note,
    Obey,
    ReleaseWorkers,
    Resend,
    Search,
    Settle,
    StopWorkers,
)
from tbcluster.cluster.agent.inspection import Inspector
from tbcluster.cluster.agent.lock import AgentLock
from tbcluster.cluster.agent.mailbox import Mailbox
from tbcluster.cluster.agent.neighbours import Neighbours
from tbcluster.cluster.agent.outbox import OfWorker, Outbox
from tbcluster.cluster.agent.searching import LAN_BLOCKED, Searcher
from tbcluster.cluster.agent.sharing import Sharing
from tbcluster.cluster.agent.site import Site
from tbcluster.cluster.agent.workers import Workers
from tbcluster.cluster.places import make_run_dir
from tbcluster.cluster.rack_file import RackFile
from tbcluster.cluster.trust import Membership, TrustFolder
from tbcluster.errors import RackError, TrustError, WireError
from tbcluster.hardware.gauges import GaugeWatch
from tbcluster.hardware.interfaces import local_interfaces
from tbcluster.machine import Machine
from tbcluster.transport.control import ControlClient
from tbcluster.weights.tls import new_certificate
from tbcluster.wire.control import Route
from tbcluster.wire.rack import (
    MAX_MESSAGE_BYTES,
    RACK_PROTOCOL,
    AgentBeat,
    CoordinatorBeat,
    FreeWorker,
    FromAgent,
    FromCoordinator,
    Goodbye,
    Hello,
    Inspect,
    Inspected,
    Measure,
    Peers,
    RackAnswer,
    Refused,
    RouteWorker,
    StartWorker,
    StopWorker,
    Watch,
    Welcome,
    WhoAreYou,
    decode_from_coordinator,
    encode_message,
)
from tbcluster.wire.tensors import Buffer

logger = logging.getLogger(__name__)

INSPECT_EVERY_S = 600.0
# Cables come and go: the list of interfaces takes a millisecond, all else seconds on a Mac.
GLANCE_EVERY_S = 5.0
# Weights that were fetched, in the folder of the node's state.
STORE = "models"


class Agent:
    """Belongs to a cluster and runs stage workers, until `stop`.

    Args:
        rack_file: Lists the coordinator's addresses, for networks without multicast.
        models: Folder of models, found by the last part of their names.
        memory_bytes: The most that models may take here; None for what MLX says.

    Raises:
        TrustError: This machine belongs to no cluster, or its keys cannot be used.
        RackError: An agent with these keys runs already, or no port can be bound.
    """

    def __init__(
        self,
        folder: TrustFolder,
        *,
        rack_file: RackFile | None = None,
        models: Path | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self._membership = _membership_of(folder)
        self._node = folder.node()
        self._lock = AgentLock(folder.path)
        self._run_dir = make_run_dir()
        self._lock.take_over(self._run_dir)
        self._incarnation = secrets.token_hex(8)
        self._mailbox = Mailbox()
        self._connection = Connection(random.random)
        self._outbox = Outbox()
        self._client: ControlClient | None = None
        self._machine: Machine | None = None
        self._is_lan_blocked = False
        self._is_stopping = self._is_left = False
        self._inspect_at = 0.0
        self._glance_at = 0.0
        self._interfaces = local_interfaces()
        post = self._mailbox.post
        listed = rack_file.head_addresses() if rack_file is not None else ()
        self._searcher = Searcher(
            folder,
            self._membership,
            listed,
            lambda *outcome: post(lambda: self._found(*outcome)),
        )
        self._neighbours = Neighbours(self._node.keys, lambda found: post(lambda: self._say(found)))
        certificate, key = new_certificate()
        self._site = Site(
            self._node.keys, self._run_dir, models, folder.path / STORE, certificate, key
        )
        self._weights_port = 0
        self._sharing = Sharing(self._site, lambda port: post(lambda: self._shares_at(port)))
        self._workers = Workers(self._site, post, self._say_of_worker)
        self._gauges = GaugeWatch()
        self._inspector = Inspector(
            models, lambda machine: post(lambda: self._saw(machine)), memory_bytes
        )

    def run(self) -> None:
        """Do all of it, in the calling thread."""
        logger.info(
            "node %s (%s) of cluster %s (%s)",
            self._membership.node_name,
            self._node.node_id,
            self._membership.cluster_name,
            self._membership.cluster_id,
        )
        self._inspect()
        self._gauges.start()
        try:
            while not self._is_stopping:
                self._turn()
        finally:
            self._close()

    def stop(self) -> None:
        """Make `run` return once all workers have ended. Thread-safe."""
        self._mailbox.post(self._end)

    def be_left(self) -> None:
        """Whoever started this agent is gone: make `run` return once it holds nothing that another
        coordinator could use. Thread-safe."""
        self._mailbox.post(self._be_left)

    def _end(self) -> None:
        self._is_stopping = True

    def _be_left(self) -> None:
        self._is_left = True
        # A coordinator that has ended said so before; one that crashed may come back.
        if not self._workers.are_reusable:
            self._end()

    def _turn(self) -> None:
        pause_s = max(0.0, min(self._next_at() - time.monotonic(), INSPECT_EVERY_S))
        got = self._mailbox.wait(pause_s)
        if isinstance(got, list):
            self._hear(got)
        elif got is not None:
            got()
        now = time.monotonic()
        if now >= self._glance_at:
            self._glance()
        if now >= self._inspect_at:
            self._inspect()
        # A Hello says what the machine is.
        if self._machine is not None:
            self._perform(self._connection.passed(now))
        self._workers.tidy(now)
        if self._is_left and not (self._connection.is_welcome or self._workers.are_reusable):
            self._end()

    def _next_at(self) -> float:
        own = min(self._inspect_at, self._glance_at, self._workers.next_at())
        return own if self._machine is None else min(own, self._connection.next_at())

    def _close(self) -> None:
        # First: the workers' end takes their folder along.
        self._sharing.close()
        self._workers.close()
        self._disconnect()
        self._neighbours.close()
        self._searcher.close()
        self._inspector.close()
        self._gauges.close()
        self._lock.release()

    # What the other threads tell

    def _saw(self, machine: Machine) -> None:
        self._machine = machine
        self._say(Inspected(self._described(machine)))

    def _found(self, addresses: tuple[str, ...], is_blocked: bool) -> None:
        if is_blocked and not self._is_lan_blocked:
            logger.error("%s", LAN_BLOCKED)
        self._is_lan_blocked = is_blocked or (self._is_lan_blocked and not addresses)
        self._perform(self._connection.found(time.monotonic(), addresses))

    def _shares_at(self, port: int) -> None:
        self._weights_port = port
        self._perform(self._connection.greet_again(time.monotonic()))

    def _say_of_worker(self, news: OfWorker) -> None:
        message = self._outbox.add(news)
        # Who has not welcomed this agent yet may be another coordinator, which counts from 1.
        if self._connection.is_welcome:
            self._say(message)

    # What the state machine asks for

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Search():
                    self._searcher.search()
                case Connect(address=address):
                    self._connect(address)
                case Greet():
                    self._greet()
                case Disconnect():
                    self._disconnect()
                case Beat():
                    self._say(AgentBeat(time.time(), self._workers.ids, self._gauges.newest))
                case Settle(address=address, welcome=welcome):
                    self._settle(address, welcome)
                case Resend():
                    for message in (*self._outbox.unheard(), *self._neighbours.seen()):
                        self._say(message)
                case StopWorkers(why=why):
                    self._workers.stop_all(why)
                case ReleaseWorkers(why=why):
                    self._workers.release_all(why, time.monotonic())
                    self._outbox.begin()
                case Obey(message=message):
                    self._obey(message)
                case Note(text=text, is_error=is_error):
                    logger.log(logging.ERROR if is_error else logging.INFO, "%s", text)
                case _:
                    assert_never(action)

    def _connect(self, address: str) -> None:
        route = Route(f"tcp://{address}", self._membership.coordinator_key)
        try:
            client = ControlClient(route, self._node.keys, max_message_bytes=MAX_MESSAGE_BYTES)
        except (RackError, TrustError) as error:
            logger.warning("%s", error)
            self._perform(self._connection.failed(time.monotonic()))
            return
        self._client = client
        self._mailbox.listen_to(client)
        self._greet()

    def _greet(self) -> None:
        assert self._machine is not None  # noqa: S101 - nothing is searched for before
        self._say(
            Hello(
                RACK_PROTOCOL,
                version("tbcluster"),
                self._incarnation,
                self._described(self._machine),
                self._neighbours.port,
                str(self._run_dir),
                os.getuid(),
                self._weights_port,
                self._site.certificate,
            )
        )

    def _disconnect(self) -> None:
        self._workers.hold()
        client, self._client = self._client, None
        self._mailbox.listen_to(None)
        if client is not None:
            client.close()

    def _settle(self, address: str, welcome: Welcome) -> None:
        logger.info(
            "connected to %s at %s, as %s", welcome.cluster_name, address, welcome.node_name
        )
        self._workers.resume(time.monotonic())
        self._searcher.rest((address, *welcome.addresses), welcome.node_name)

    # What the coordinator says

    def _hear(self, frames: list[Buffer]) -> None:
        try:
            message = decode_from_coordinator(frames[0])
        except WireError as error:
            logger.warning("dropped a message: %s", error)
            return
        self._perform(self._connection.heard(time.monotonic(), message))

    def _obey(self, message: FromCoordinator) -> None:
        match message:
            case CoordinatorBeat(heard=serial):
                self._outbox.heard(serial)
            case Peers(peers=peers):
                self._neighbours.meet(peers)
                self._sharing.accept(peer.certificate for peer in peers)
            case StartWorker(worker_id=worker_id, spec=spec):
                self._workers.start(worker_id, spec)
            case RouteWorker(worker_id=worker_id, routes=routes):
                self._workers.route(worker_id, routes)
            case StopWorker(worker_id=worker_id):
                self._workers.stop(worker_id)
            case FreeWorker(worker_id=worker_id):
                self._workers.free(worker_id, time.monotonic())
            case Inspect():
                self._inspector.look()
            case Measure(peer_id=peer_id):
                local = self._machine.interfaces if self._machine is not None else ()
                self._neighbours.measure(peer_id, local)
            case Watch(peer_id=peer_id, paths=paths):
                self._neighbours.watch(peer_id, paths)
            case Welcome() | Refused() | Goodbye() | RackAnswer() | WhoAreYou():
                pass  # said to others, or before

    # How

    def _inspect(self) -> None:
        self._inspect_at = time.monotonic() + INSPECT_EVERY_S
        self._inspector.look()

    def _glance(self) -> None:
        """Look at the machine anew if its interfaces are others than before."""
        self._glance_at = time.monotonic() + GLANCE_EVERY_S
        interfaces = local_interfaces()
        if interfaces != self._interfaces:
            self._interfaces = interfaces
            self._inspect()

    def _described(self, machine: Machine) -> Machine:
        return replace(machine, is_lan_blocked=self._is_lan_blocked)

    def _say(self, message: FromAgent) -> None:
        """What cannot be said is said again, or is news no more, once there is a connection."""
        if self._client is not None and not self._client.send([encode_message(message)]):
            self._perform(self._connection.broke(time.monotonic()))


def _membership_of(folder: TrustFolder) -> Membership:
    membership = folder.membership()
    if membership is None:
        raise TrustError(
            "this machine belongs to no cluster: run `tbcluster invite` on the head node and "
            "`tbcluster join TOKEN` here (on the head node itself: `tbcluster init`)"
        )
    return membership
