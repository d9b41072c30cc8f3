"""The rack as the coordinator uses it: nodes that come and go, and places for stages on them."""

import errno
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Self

from tbcluster.checkpoint import Span
from tbcluster.cluster.agent.lock import runs_agent
from tbcluster.cluster.discovery.mdns import Announcer
from tbcluster.cluster.rack.calibration import measured_speeds
from tbcluster.cluster.rack.control_plane import ControlPlane
from tbcluster.cluster.rack.fetching import FetchStatus, RackFetch
from tbcluster.cluster.rack.link_book import LinkBook
from tbcluster.cluster.rack.link_file import LinkFile
from tbcluster.cluster.rack.local_agent import LocalAgent
from tbcluster.cluster.rack.places import RackPlaces
from tbcluster.cluster.rack.run_folder import RunFolder
from tbcluster.cluster.speed_book import SpeedBook
from tbcluster.cluster.trust.desk import JoinDesk
from tbcluster.cluster.trust.folder import TrustFolder
from tbcluster.cluster.trust.identity import HeadIdentity
from tbcluster.cluster.trust.invitation import invited_to
from tbcluster.cluster.trust.members import MemberFile, MemberRing
from tbcluster.cluster.trust.roster import Member
from tbcluster.errors import (
    ClusterClosedError,
    PortInUseError,
    RackError,
    TrustError,
    UnknownNodeError,
)
from tbcluster.hardware.interfaces import local_interfaces
from tbcluster.hardware.private_file import PrivateFile
from tbcluster.machine import NodeState, NodeView, RackView, Serving
from tbcluster.planner.nodes import NodeSpeed
from tbcluster.weights.library import ModelSource
from tbcluster.wire.rack import AskRack

# How often whoever waits looks whether it still should.
LOOK_S = 0.5
# Nodes that are on their way need no line.
PATIENCE_S = 2.0
HINT_S = 10.0
HINT = (
    "(run `tbcluster agent` there; or give its layers to others with --place, or leave it out for "
    "good with `tbcluster nodes revoke`)"
)


class Rack:
    """The nodes of the cluster whose head this machine is, as a context manager.

    Args:
        folder: Where this machine's keys are kept; None for the usual place.
        port_patience_s: How long to wait for the control port, which a command that looks at the
            rack may hold for a moment.
        memory_bytes: The most that models may take on this machine; None for what MLX says. An
            agent that runs here already knows its own.
        on_note: Called with each line a user should see.

    Raises (from `start` or on entering):
        RackError: This machine is no head node, or a coordinator runs here already.
        TrustError: The folder's files cannot be used.
        ClusterClosedError: `close` was called meanwhile.
    """

    def __init__(
        self,
        folder: TrustFolder | None = None,
        *,
        port_patience_s: float = 15.0,
        memory_bytes: int | None = None,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._port_patience_s = port_patience_s
        self._memory_bytes = memory_bytes
        self._folder = folder or TrustFolder()
        self._on_note = on_note
        self._cleanup = ExitStack()
        self._plane: ControlPlane | None = None
        self._head: HeadIdentity | None = None
        self._run_folder: RunFolder | None = None
        self._is_closed = threading.Event()
        self._keeps_workers = False

    def start(self) -> Self:
        """Open the control port, admit those who are invited, announce this node, and run an agent
        here unless one runs already."""
        head = self._head = head_of(self._folder)
        file = MemberFile(self._folder)
        ring = MemberRing(file)
        links = LinkFile(PrivateFile(self._folder.path / "links.json", TrustError))
        with ExitStack() as cleanup:
            self._plane = self._open_control_plane(head, ring, links)
            cleanup.callback(self._plane.close)
            self._run_folder = RunFolder(self._folder.path)
            cleanup.callback(self._run_folder.close)
            desk = JoinDesk(head, file)
            desk.start()
            cleanup.callback(desk.close)
            cleanup.callback(Announcer(head.cluster_id, head.control_port).close)
            self._warn_of_agent()
            agent = LocalAgent(self._folder, self._memory_bytes)
            cleanup.callback(self._part, self._plane, agent)
            self._cleanup = cleanup.pop_all()
        if self._is_closed.is_set():
            # `close` may have come too early to find anything.
            self._cleanup.close()
            raise ClusterClosedError("the rack was closed while it was starting")
        return self

    def close(self, *, keeps_workers: bool = False) -> None:
        """End what the nodes run; whoever waits for them stops waiting. Thread-safe.

        Args:
            keeps_workers: They keep their stage workers for a while: another coordinator follows,
                which finds the weights in their memory.
        """
        self._keeps_workers = keeps_workers
        self._is_closed.set()
        self._cleanup.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def plane(self) -> ControlPlane:
        """Raises: RackError when the rack is not started."""
        if self._plane is None:
            raise RackError("the rack is not running: use `with` or call `start` first")
        return self._plane

    @property
    def may_drain(self) -> Callable[[str], str | None]:
        """Says why a node of this name cannot be drained, or None; called in a thread of its
        own."""
        return self.plane.may_drain

    @may_drain.setter
    def may_drain(self, may_drain: Callable[[str], str | None]) -> None:
        self.plane.may_drain = may_drain

    def usable(self) -> tuple[NodeView, ...]:
        """The nodes that can be given stages now, the head node first."""
        ids = set(self.plane.usable())
        return tuple(_head_first([one for one in self.plane.nodes() if one.node_id in ids]))

    def await_nodes(
        self,
        wanted: Sequence[str] = (),
        gives_up: Callable[[], bool] = lambda: False,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> list[NodeView]:
        """Wait until these nodes are online, and the links between them are known.

        Args:
            wanted: Their names; with none of them all nodes are waited for.
            gives_up: Asked now and then whether to stop waiting.
            on_wait: Told now and then what is waited for, in words.

        Returns:
            All that are online, the head node first; none that is drained.

        Raises:
            UnknownNodeError: One of them is no node.
            RackError: One of them is drained, or all nodes are.
            ClusterClosedError: Nobody waits any more.
        """
        asked_for = list(wanted)
        self._check_names(asked_for)
        self._check_drained(asked_for)
        wanted = list(asked_for)
        if wanted:
            # The coordinator's own ways are those of its node.
            wanted += [member.name for member in self._members() if member.is_head]
        said, started = "", time.monotonic()
        hints = [HINT]
        while not self._are_there(wanted):
            if self._is_closed.is_set() or gives_up():
                raise ClusterClosedError("the cluster was closed while it waited for its nodes")
            missing = _missing(self.plane.nodes(), wanted)
            line = f"waiting for {', '.join(missing)}" if missing else "measuring the links"
            on_wait(line)
            waited_s = time.monotonic() - started
            if line != said and waited_s > PATIENCE_S:
                self._on_note(line)
                said = line
            if missing and hints and waited_s > HINT_S:
                self._on_note(hints.pop())
        self._check_drained(asked_for)
        there = [
            node
            for node in self.plane.nodes()
            # One that is wanted was there, and is waited for should it have gone since.
            if not node.is_drained and (node.state is NodeState.ONLINE or node.name in wanted)
        ]
        return _head_first(there)

    def places(self, names: Sequence[str], *, is_looped: bool) -> RackPlaces:
        """Places for stages on these nodes.

        Raises:
            UnknownNodeError: One of them was renamed or revoked meanwhile.
        """
        if self._head is None or self._run_folder is None:
            raise RackError("the rack is not running: use `with` or call `start` first")
        self._check_names(names)
        members = {member.node_id: member for member in self._members()}
        ids = {member.name: member.node_id for member in members.values()}
        nodes = [ids[name] for name in names]
        run_dir = self._run_folder.path
        return RackPlaces(self.plane, self._head, nodes, members, run_dir, is_looped=is_looped)

    def fetch(
        self,
        source: ModelSource,
        needs: Mapping[str, Sequence[Span]],
        on_progress: Callable[[tuple[FetchStatus, ...]], None] = lambda _: None,
        gives_up: Callable[[], bool] = lambda: False,
        *,
        verifies: bool = False,
        hub: str = "",
    ) -> dict[str, str]:
        """Have nodes fetch what they need of a model onto their own disks; those that are offline
        are waited for.

        Args:
            needs: By the node's name, the bytes of the model's files that its stages load.
            on_progress: Called in this thread whenever a node is further than before.
            gives_up: Asked now and then whether to stop.
            verifies: Whether all that these nodes hold is read and hashed first.
            hub: Endpoint of the hub; empty for each node's own setting.

        Returns:
            By the node's name, the folder there that stages load from.

        Raises:
            FetchError: It failed on a node, which the message names; all others have stopped.
            UnknownNodeError, RackError: There is no such node any more, or the rack was closed.
            ClusterClosedError: It was given up.
        """
        self._check_names(list(needs))
        ids = {member.name: member.node_id for member in self._members()}
        by_id = {ids[name]: spans for name, spans in needs.items()}
        folders = RackFetch(self.plane, source, by_id, hub=hub, verifies=verifies).run(
            on_progress, lambda: self._is_closed.is_set() or gives_up()
        )
        return {name: folders[ids[name]] for name in needs}

    def speeds(
        self, kind: str, gives_up: Callable[[], bool] = lambda: False
    ) -> dict[str, NodeSpeed]:
        """How fast the nodes compute, by node id. Those that are online and whose speed is not
        known are measured, which takes some seconds; what cannot be measured is missing.

        Args:
            kind: Of the weights (`ModelProfile.speed_kind`).
            gives_up: Asked now and then whether to stop.

        Raises:
            RackError: The rack was closed.
            ClusterClosedError: It was given up.
        """
        return measured_speeds(
            self.plane,
            self.plane.view().nodes,
            kind,
            SpeedBook(self._folder.path),
            lambda: self._is_closed.is_set() or gives_up(),
        )

    def known_speeds(self, kind: str) -> dict[str, NodeSpeed]:
        """The same without measuring any."""
        return SpeedBook(self._folder.path).find(self.plane.nodes(), kind)

    def describe(self, serving: Callable[[], Serving | None]) -> None:
        """What is served, for those who ask."""
        self.plane.describe = serving

    def view(self, *, inspects: bool = False, measures: bool = False) -> RackView:
        """Everything there is to know.

        Args:
            inspects: Whether the nodes look at their machines anew.
            measures: Whether the links are measured anew.
        """
        return self.plane.ask(AskRack(inspects, measures))

    def _open_control_plane(
        self, head: HeadIdentity, ring: MemberRing, links: LinkFile
    ) -> ControlPlane:
        give_up = time.monotonic() + self._port_patience_s
        while True:
            try:
                return _control_plane(head, ring, links)
            except PortInUseError:
                if time.monotonic() > give_up or self._is_closed.wait(LOOK_S):
                    raise

    def _warn_of_agent(self) -> None:
        if self._memory_bytes is not None and runs_agent(self._folder.path):
            self._on_note(
                "an agent runs on this machine already: how much memory models may take here is "
                "for its own --memory to say"
            )

    def _members(self) -> list[Member]:
        known = MemberFile(self._folder).nodes()
        return [member for member in known if not member.is_revoked]

    def _are_there(self, wanted: Sequence[str]) -> bool:
        try:
            return self.plane.wait_for(lambda nodes: not _missing(nodes, wanted), LOOK_S)
        except RackError:
            # Closing the control plane wakes those who wait for it.
            if self._is_closed.is_set():
                return False
            raise

    def _part(self, plane: ControlPlane, agent: LocalAgent) -> None:
        leaves_workers = self._keeps_workers and plane.has_workers
        # First: the agent has to hear how it parts from it.
        plane.close(keeps_workers=self._keeps_workers)
        agent.close(keeps_workers=leaves_workers)

    def _check_drained(self, wanted: Sequence[str]) -> None:
        members = self._members()
        for member in members:
            if member.is_drained and member.name in wanted:
                raise RackError(
                    f"{member.name} is drained: `tbcluster undrain {member.name}` takes it back"
                )
        if all(member.is_drained for member in members):
            raise RackError("all nodes are drained: `tbcluster undrain NODE` takes one back")

    def _check_names(self, wanted: Sequence[str]) -> None:
        names = [member.name for member in self._members()]
        for name in wanted:
            if name not in names:
                raise UnknownNodeError(f"there is no node {name!r}: there are {', '.join(names)}")


def head_of(folder: TrustFolder) -> HeadIdentity:
    """The identity of the cluster whose head this machine is.

    Raises:
        RackError: It is none.
    """
    head = folder.head()
    if head is not None:
        return head
    membership = folder.membership()
    if membership is None:
        raise RackError(
            f"there is no cluster in {folder.path}: make one with `tbcluster init`, or join one "
            "with `tbcluster join TOKEN`"
        )
    raise RackError(
        f"this machine is node {membership.node_name!r} of {membership.cluster_name!r}, not its "
        "head: run this on the head node"
    )


def _control_plane(head: HeadIdentity, ring: MemberRing, links: LinkFile) -> ControlPlane:
    addresses = invited_to(local_interfaces())
    try:
        return ControlPlane(head, ring, LinkBook(links.load()), addresses, links.save)
    except RackError as error:
        if getattr(error.__cause__, "errno", None) != errno.EADDRINUSE:
            raise
        raise PortInUseError(
            f"port {head.control_port} is in use: a coordinator of {head.cluster_name} runs here "
            "already, or another program; end it first"
        ) from error


def _missing(nodes: Sequence[NodeView], wanted: Sequence[str]) -> list[str]:
    """Names of those that are not there: of all that are not drained and the head node, or of
    these."""
    return [
        node.name
        for node in nodes
        if node.state not in (NodeState.ONLINE, NodeState.REVOKED)
        and (node.name in wanted if wanted else node.is_head or not node.is_drained)
    ]


def _head_first(nodes: Sequence[NodeView]) -> list[NodeView]:
    return sorted(nodes, key=lambda node: (not node.is_head, node.name))
