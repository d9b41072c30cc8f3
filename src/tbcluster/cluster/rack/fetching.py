"""How the weights of a model come to the nodes of a rack: what each needs is on its own disk.

The nodes are asked what they hold; what several of them need leaves the hub once, and goes from
node to node over their best links.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tbcluster.checkpoint import Span, num_bytes
from tbcluster.cluster.rack.actions import MakeSpec
from tbcluster.cluster.rack.control_plane import ControlPlane
from tbcluster.cluster.rack.errands import RackErrand
from tbcluster.weights.assigning import assign
from tbcluster.weights.library import ModelSource
from tbcluster.weights.store import pieces_in
from tbcluster.wire.control import Report, WorkerSpec
from tbcluster.wire.errands import (
    Fetched,
    Fetching,
    FetchPart,
    FetchSpec,
    Neighbour,
    Surveyed,
    SurveySpec,
)
from tbcluster.wire.rack import Hello

SPEED_WINDOW_S = 3.0


@dataclass(frozen=True, slots=True)
class FetchStatus:
    """How far a node is.

    Attributes:
        node: Its name.
        done_bytes, total_bytes: Of what it needs.
        held_bytes: What was there at the beginning.
        hub_bytes, neighbour_bytes: What has come from where.
        bytes_per_s: Over the last seconds.
    """

    node: str
    done_bytes: int
    total_bytes: int
    held_bytes: int = 0
    hub_bytes: int = 0
    neighbour_bytes: int = 0
    bytes_per_s: float = 0.0
    is_done: bool = False


class RackFetch:
    """One model onto the disks of some nodes.

    Args:
        needs: By node id, the bytes of the model's files that its stages load. Small files and
            headers go to every one of them anyway.
        hub: Endpoint of the hub; empty for each node's own setting.
        verifies: Whether all that these nodes hold is read and hashed first.

    Raises:
        FetchError: A span is not part of the model, or its headers cannot be read.
    """

    def __init__(
        self,
        plane: ControlPlane,
        source: ModelSource,
        needs: Mapping[str, Sequence[Span]],
        *,
        hub: str = "",
        verifies: bool = False,
    ) -> None:
        pieces = pieces_in(source.folder, source.listing)
        self._plane = plane
        self._listing = source.listing
        self._hub = hub
        self._verifies = verifies
        self._needs = {
            node_id: sorted({*pieces.always, *pieces.touching(spans)})
            for node_id, spans in needs.items()
        }
        self._progress = {
            node_id: FetchProgress(plane.name_of(node_id), num_bytes(spans))
            for node_id, spans in self._needs.items()
        }

    @property
    def statuses(self) -> tuple[FetchStatus, ...]:
        """How far every node is, in the order of `needs`."""
        return tuple(progress.status for progress in self._progress.values())

    def run(
        self,
        on_progress: Callable[[tuple[FetchStatus, ...]], None] = lambda _: None,
        gives_up: Callable[[], bool] = lambda: False,
    ) -> dict[str, str]:
        """Fetch it all, in the calling thread.

        Args:
            on_progress: Called there whenever a node is further than before.
            gives_up: Asked now and then whether to stop.

        Returns:
            By node id, the folder there that stages load from.

        Raises:
            FetchError: It failed on a node, which the message names; all others have stopped.
            RackError: A node was revoked, or the rack was closed.
            ClusterClosedError: It was given up.
        """
        parts = assign(self._needs, self._survey(gives_up))

        def note(node_id: str, report: Report) -> None:
            if isinstance(report, Fetching):
                self._progress[node_id].note(report, time.monotonic())
                on_progress(self.statuses)

        on_progress(self.statuses)
        make_specs = {node_id: self._fetches(node_id, parts[node_id]) for node_id in self._needs}
        results = RackErrand(self._plane, make_specs, Fetched).run(
            note, lambda node_id: self._progress[node_id].begin_again(), gives_up
        )
        folders: dict[str, str] = {}
        for node_id, result in results.items():
            if isinstance(result, Fetched):
                self._progress[node_id].end(result)
                folders[node_id] = result.folder
        on_progress(self.statuses)
        return folders

    def _survey(self, gives_up: Callable[[], bool]) -> dict[str, tuple[Span, ...]]:
        """What of the model is where: on the nodes that need it, and on all that are online."""
        there = set(self._plane.online()) | self._needs.keys()
        make_specs = {node_id: self._asks(node_id) for node_id in there}
        errand = RackErrand(
            self._plane, make_specs, Surveyed, frozenset(there - self._needs.keys())
        )
        results = errand.run(lambda *_: None, lambda _: None, gives_up)
        return {
            node_id: result.spans
            for node_id, result in results.items()
            if isinstance(result, Surveyed)
        }

    def _asks(self, node_id: str) -> MakeSpec:
        verifies = self._verifies and node_id in self._needs
        return lambda _: SurveySpec(self._listing, verifies=verifies)

    def _fetches(self, node_id: str, parts: tuple[FetchPart, ...]) -> MakeSpec:
        def make_spec(_: Hello) -> WorkerSpec:
            return FetchSpec(self._listing, parts, self._neighbours(node_id), self._hub)

        return make_spec

    def _neighbours(self, node_id: str) -> tuple[Neighbour, ...]:
        """All others that a node can copy from now."""
        found = []
        for other in self._plane.online():
            hello = self._plane.hello(other)
            addresses = self._plane.addresses(node_id, other)
            if other != node_id and hello is not None and hello.weights_port and addresses:
                found.append(
                    Neighbour(
                        other,
                        self._plane.name_of(other),
                        addresses,
                        hello.weights_port,
                        hello.certificate,
                    )
                )
        return tuple(found)


@dataclass
class FetchProgress:
    """Of one node, over however many processes it takes. Times in seconds."""

    node: str
    total_bytes: int
    status: FetchStatus = field(init=False)
    _before: Fetching = field(init=False)
    _last: Fetching = field(init=False)
    _samples: deque[tuple[float, int]] = field(init=False, default_factory=deque)
    _held_bytes: int | None = None

    def __post_init__(self) -> None:
        self.status = FetchStatus(self.node, 0, self.total_bytes)
        self._before = self._last = Fetching(0, self.total_bytes)

    def begin_again(self) -> None:
        """Another process is started, which counts from nothing."""
        self._before = self._sum(self._last)
        self._last = Fetching(self._last.done_bytes, self.total_bytes)

    def note(self, report: Fetching, now: float) -> None:
        """What its process says."""
        self._last = report
        if self._held_bytes is None:
            self._held_bytes = report.held_bytes
        self._tell(self._sum(report), now)

    def end(self, result: Fetched) -> None:
        """It has all."""
        last = Fetching(
            self.total_bytes,
            self.total_bytes,
            result.held_bytes,
            result.hub_bytes,
            result.neighbour_bytes,
        )
        self.note(last, self._samples[-1][0] if self._samples else 0.0)
        self.status = replace(self.status, bytes_per_s=0.0, is_done=True)

    def _sum(self, report: Fetching) -> Fetching:
        return Fetching(
            report.done_bytes,
            report.total_bytes,
            report.held_bytes,
            self._before.hub_bytes + report.hub_bytes,
            self._before.neighbour_bytes + report.neighbour_bytes,
        )

    def _tell(self, total: Fetching, now: float) -> None:
        fetched = total.hub_bytes + total.neighbour_bytes
        self._samples.append((now, fetched))
        while self._samples[0][0] < now - SPEED_WINDOW_S:
            self._samples.popleft()
        since, before = self._samples[0]
        self.status = FetchStatus(
            self.node,
            total.done_bytes,
            self.total_bytes,
            self._held_bytes or 0,
            total.hub_bytes,
            total.neighbour_bytes,
            (fetched - before) / (now - since) if now > since else 0.0,
        )
