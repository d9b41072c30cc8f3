"""Where the stages of a model run on a rack, and how their messages reach each other."""

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tbcluster.cluster.discovery.addresses import join_port
from tbcluster.cluster.places import COORDINATOR, OnExit, OnReport
from tbcluster.cluster.rack.control_plane import ControlPlane
from tbcluster.cluster.trust.identity import HeadIdentity
from tbcluster.cluster.trust.roster import Member
from tbcluster.errors import NoPathError, StageError
from tbcluster.transport.curve import Guard
from tbcluster.wire.control import CurveKeys, Report, Route, Routes, StageSpec
from tbcluster.wire.rack import Hello, WorkerStarted

ANY_PORT = "tcp://*:*"
LOOPBACK = "127.0.0.1"
# A node that is there ends its workers at once.
STOP_GRACE_S = 5.0


class RemoteWorker:
    """A stage worker that an agent runs."""

    def __init__(
        self, plane: ControlPlane, node_id: str, on_report: OnReport, on_exit: OnExit
    ) -> None:
        self.worker_id = secrets.token_hex(8)
        self.pid = 0
        self._plane = plane
        self._node_id = node_id
        self._on_report = on_report
        self._on_exit = on_exit
        self._has_ended = threading.Event()

    def route(self, routes: Routes) -> None:
        self._plane.route_worker(self._node_id, self.worker_id, routes)

    def ask_to_stop(self) -> None:
        self._plane.stop_worker(self._node_id, self.worker_id)

    def free(self) -> None:
        self._plane.free_worker(self._node_id, self.worker_id)

    def join(self) -> None:
        self._has_ended.wait(STOP_GRACE_S)

    def hear(self, news: Report | WorkerStarted | str) -> None:
        """What its agent says of it."""
        if isinstance(news, WorkerStarted):
            self.pid = news.pid
        elif isinstance(news, str):
            self._has_ended.set()
            self._on_exit(news)
        else:
            self._on_report(news)


class RackPlaces:
    """The stages of one model on the nodes of a rack.

    Args:
        nodes: The node of each stage.
        members: All nodes, by id.
        run_dir: Where a socket may be made.
        is_looped: Whether the last stage sends to stage 0.
    """

    def __init__(
        self,
        plane: ControlPlane,
        head: HeadIdentity,
        nodes: Sequence[str],
        members: dict[str, Member],
        run_dir: Path,
        *,
        is_looped: bool,
    ) -> None:
        self._plane = plane
        self._head = head
        self._nodes = list(nodes)
        self._members = members
        self._head_node = next(member.node_id for member in members.values() if member.is_head)
        self._is_looped = is_looped
        # Replicas share the folder, and so does what comes after these places.
        self._socket = run_dir / f"results-{secrets.token_hex(4)}"
        # Endpoints that do not leave their machine, by stage.
        self._local: dict[int, str] = {}
        self._followers: list[Callable[[], None]] = []
        last_hello = plane.hello(self._nodes[-1])
        if self._is_beside_coordinator(self._nodes[-1], last_hello):
            self._local[COORDINATOR] = f"ipc://{self._socket}"

    @property
    def keys(self) -> CurveKeys:
        return self._head.keys

    @property
    def results(self) -> str:
        return self._local.get(COORDINATOR, ANY_PORT)

    @property
    def results_guard(self) -> Guard | None:
        if COORDINATOR in self._local:
            return None
        allowed = self._members[self._nodes[-1]].public_key
        return Guard(self._head.keys, lambda key: key == allowed)

    def name(self, stage: int) -> str:
        return self._plane.name_of(self._nodes[stage])

    def launch(self, spec: StageSpec, on_report: OnReport, on_exit: OnExit) -> RemoteWorker:
        node_id = self._nodes[spec.index]
        if self._plane.is_revoked(node_id):
            raise StageError(
                f"stage {spec.index} was on {self.name(spec.index)}, which was revoked"
            )
        worker = RemoteWorker(self._plane, node_id, on_report, on_exit)

        def make_spec(hello: Hello) -> StageSpec:
            return self._placed(spec, hello, worker.worker_id)

        self._plane.start_worker(node_id, worker.worker_id, make_spec, worker.hear)
        return worker

    def route(self, source: int, target: int, port: int) -> Route:
        local = self._local.get(target)
        if local is not None:
            return Route(local)
        here, there = self._node(source), self._node(target)
        if here == there:
            return Route(f"tcp://{join_port(LOOPBACK, port)}", self._public_key(target))
        try:
            best = self._plane.best_path(here, there)
        except NoPathError as error:
            names = f"{self._members[here].name} to {self._members[there].name}"
            raise NoPathError(f"no way is open from {names}: {error}") from error
        return Route(f"tcp://{join_port(best.path.address, port)}", self._public_key(target))

    def is_open(self, source: int, target: int, route: Route) -> bool:
        here, there = self._node(source), self._node(target)
        if here == there or target in self._local:
            return True
        # The inverse of `join_port`, whatever a node says that its addresses are.
        host = route.endpoint.removeprefix("tcp://").rpartition(":")[0]
        address = host.removeprefix("[").removesuffix("]")
        return self._plane.is_alive(here, there, address)

    def follow(self, on_change: Callable[[], None]) -> None:
        self._followers.append(on_change)
        self._plane.follow(on_change)

    def close(self) -> None:
        for on_change in self._followers:
            self._plane.unfollow(on_change)
        self._followers.clear()
        self._socket.unlink(missing_ok=True)

    def _placed(self, spec: StageSpec, hello: Hello, worker_id: str) -> StageSpec:
        """The spec with what depends on its node."""
        stage, node_id = spec.index, self._nodes[spec.index]
        sources = self._sources(stage)
        is_local = all(
            self._is_beside_coordinator(node_id, hello)
            if source == COORDINATOR
            else self._nodes[source] == node_id
            for source in sources
        )
        inbound = f"ipc://{hello.run_dir}/{worker_id}" if is_local else ANY_PORT
        if is_local:
            self._local[stage] = inbound
        else:
            self._local.pop(stage, None)
        senders = {self._public_key(source) for source in sources}
        return msgspec.structs.replace(
            spec, inbound=inbound, run_dir=hello.run_dir, senders=tuple(sorted(senders))
        )

    def _sources(self, stage: int) -> list[int]:
        """Who sends to a stage."""
        if stage > 0:
            return [stage - 1]
        return [COORDINATOR, len(self._nodes) - 1] if self._is_looped else [COORDINATOR]

    def _is_beside_coordinator(self, node_id: str, hello: Hello | None) -> bool:
        """Whether the coordinator can use sockets in the folders of this node's agent."""
        is_same_user = hello is not None and hello.user_id == os.getuid()
        return node_id == self._head_node and is_same_user

    def _node(self, stage: int) -> str:
        return self._head_node if stage == COORDINATOR else self._nodes[stage]

    def _public_key(self, stage: int) -> str:
        if stage == COORDINATOR:
            return self._head.keys.public
        return self._members[self._nodes[stage]].public_key
