"""How the weights of a model come to the nodes of a rack: what each needs is on its own disk.

The nodes are asked what they hold; what any of them needs leaves the hub once, and goes from node
to node over their best links, also to those that do not reach the hub.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tbcluster.checkpoint import Span, num_bytes
from tbcluster.cluster.rack.actions import MakeSpec
from tbcluster.cluster.rack.control_plane import ControlPlane
from tbcluster.cluster.rack.errands import RackErrand
from tbcluster.errors import DiskFullError, FetchError
from tbcluster.weights.assigning import HUB, assign
from tbcluster.weights.library import ModelSource
from tbcluster.weights.store import pieces_in
from tbcluster.wire.control import Report, WorkerSpec
from tbcluster.wire.errands import (
    Checking,
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

OnProgress = Callable[[tuple["FetchStatus", ...]], None]


@dataclass(frozen=True, slots=True)
class FetchStatus:
    """How far a node is.

    Attributes:
        node: Its name.
        done_bytes, total_bytes: Of what it needs, and fetches for others; while it `is_checking`,
            of what it has and hashes again.
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
    is_checking: bool = False


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
        self._on_progress: OnProgress = lambda _: None
        self._gives_up: Callable[[], bool] = lambda: False

    @property
    def statuses(self) -> tuple[FetchStatus, ...]:
        """How far every node is, in the order of `needs`; then those that fetch for others."""
        return tuple(progress.status for progress in self._progress.values())

    def run(
        self,
        on_progress: OnProgress = lambda _: None,
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
        self._on_progress, self._gives_up = on_progress, gives_up
        parts, reaching = self._assigned(verifies=self._verifies)
        while True:
            try:
                return self._fetch(parts)
            except DiskFullError:
                raise
            except FetchError:
                before = reaching
                parts, reaching = self._assigned(verifies=False)
                # A node that has lost the hub since leaves its share to those that have it.
                if not reaching or not reaching < before:
                    raise

    def _fetch(self, parts: Mapping[str, tuple[FetchPart, ...]]) -> dict[str, str]:
        for node_id, own in parts.items():
            self._progress_of(node_id).begin(sum(num_bytes(part.spans) for part in own))
        self._on_progress(self.statuses)
        make_specs = {node_id: self._fetches(node_id, own) for node_id, own in parts.items()}
        results = RackErrand(self._plane, make_specs, Fetched).run(
            self._note, lambda node_id: self._progress_of(node_id).begin(), self._gives_up
        )
        for node_id, result in results.items():
            if isinstance(result, Fetched):
                self._progress_of(node_id).end(result)
        self._on_progress(self.statuses)
        return {
            node_id: result.folder
            for node_id, result in results.items()
            if isinstance(result, Fetched) and node_id in self._needs
        }

    def _progress_of(self, node_id: str) -> "FetchProgress":
        if node_id not in self._progress:
            self._progress[node_id] = FetchProgress(self._plane.name_of(node_id), 0)
        return self._progress[node_id]

    def _note(self, node_id: str, report: Report) -> None:
        progress = self._progress.get(node_id)
        if progress is not None and isinstance(report, Fetching | Checking):
            progress.note(report, time.monotonic())
            self._on_progress(self.statuses)

    def _assigned(
        self, *, verifies: bool
    ) -> tuple[dict[str, tuple[FetchPart, ...]], frozenset[str]]:
        """Who fetches what from where, and who reaches the hub, if anyone has to."""
        there = set(self._plane.online())
        found = self._survey(there | self._needs.keys(), verifies=verifies)
        held = {node_id: surveyed.spans for node_id, surveyed in found.items()}
        parts = assign(self._needs, held)
        asks_hub = any(part.source == HUB for own in parts.values() for part in own)
        if not asks_hub or Path(self._listing.source).is_absolute() or len(there) < 2:
            return parts, frozenset()
        tried = self._survey(there, tries_hub=True)
        # What nobody else can copy from it, a node need not fetch for others.
        reaching = frozenset(
            node_id
            for node_id, surveyed in tried.items()
            if surveyed.reaches_hub and (node_id in self._needs or self._shares(node_id))
        )
        return assign(self._needs, held, reaching), reaching

    def _survey(
        self, there: set[str], *, verifies: bool = False, tries_hub: bool = False
    ) -> dict[str, Surveyed]:
        """What these nodes hold of the model. Those that need nothing are not waited for; nor is
        any to try the hub."""
        awaited = frozenset() if tries_hub else self._needs.keys()

        def asks(node_id: str) -> MakeSpec:
            spec = SurveySpec(
                self._listing,
                verifies=verifies and node_id in self._needs,
                tries_hub=tries_hub,
                hub=self._hub,
            )
            return lambda _: spec

        make_specs = {node_id: asks(node_id) for node_id in there}
        errand = RackErrand(self._plane, make_specs, Surveyed, frozenset(there - awaited))
        results = errand.run(self._note, lambda _: None, self._gives_up)
        return {
            node_id: result for node_id, result in results.items() if isinstance(result, Surveyed)
        }

    def _shares(self, node_id: str) -> bool:
        hello = self._plane.hello(node_id)
        return hello is not None and bool(hello.weights_port)

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

    def begin(self, total_bytes: int | None = None) -> None:
        """A process is started, which counts from nothing; another total is another task."""
        self._before = self._sum(self._last)
        if total_bytes is not None:
            self.total_bytes = total_bytes
        self._last = Fetching(self._last.done_bytes, self.total_bytes)
        self.status = replace(
            self.status,
            done_bytes=self._last.done_bytes,
            total_bytes=self.total_bytes,
            is_checking=False,
        )

    def note(self, report: Fetching | Checking, now: float) -> None:
        """What its process says."""
        if isinstance(report, Checking):
            self.status = replace(
                self.status,
                done_bytes=report.done_bytes,
                total_bytes=report.total_bytes,
                bytes_per_s=0.0,
                is_checking=True,
            )
            return
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
