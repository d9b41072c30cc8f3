"""One errand on several nodes at once, from its start to its result, whatever happens to them
meanwhile.

A node that is lost goes on once it is back; a process that dies is started again a few times.
"""

import queue
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from tbcluster.cluster.rack.actions import MakeSpec
from tbcluster.cluster.rack.control_plane import ControlPlane
from tbcluster.errors import ClusterClosedError, DiskFullError, FetchError, RackError
from tbcluster.wire.control import Failed, Report, WorkerSpec
from tbcluster.wire.rack import Hello, WorkerStarted

LOOK_S = 0.2
MAX_RESTARTS = 5
# A node that is there ends its processes at once.
STOP_GRACE_S = 5.0

News = Report | WorkerStarted | str


@dataclass(slots=True)
class _Attempt:
    """A process on a node; `incarnation` is its agent's, once it was told to start it."""

    worker_id: str
    incarnation: str = ""
    has_ended: bool = False


class RackErrand:
    """Runs in the thread that calls `run`, once.

    Args:
        make_specs: What each node is asked, by node id.
        result: The report that a process ends with when all went well.
        optional: Nodes that are not waited for if they are lost or their process fails.
    """

    def __init__(
        self,
        plane: ControlPlane,
        make_specs: Mapping[str, MakeSpec],
        result: type[Report],
        optional: frozenset[str] = frozenset(),
    ) -> None:
        self._plane = plane
        self._make_specs = make_specs
        self._result = result
        self._optional = optional
        self._news: queue.SimpleQueue[tuple[str, _Attempt, News]] = queue.SimpleQueue()
        self._attempts: dict[str, _Attempt] = {}
        self._num_restarts = dict.fromkeys(make_specs, 0)
        self._open = set(make_specs)
        self._results: dict[str, Report] = {}

    def run(
        self,
        on_report: Callable[[str, Report], None],
        on_restart: Callable[[str], None],
        gives_up: Callable[[], bool],
    ) -> dict[str, Report]:
        """Have it done everywhere.

        Args:
            on_report: Called with each node and what its process says before its result.
            on_restart: Called with each node whose process begins anew.
            gives_up: Asked now and then whether to stop.

        Returns:
            The result of each node; optional ones may be missing.

        Raises:
            FetchError: A process failed or died too often; the message names the node.
            RackError: A node was revoked, or the rack was closed.
            ClusterClosedError: It was given up.
        """
        try:
            for node_id in self._make_specs:
                self._start(node_id)
            while self._open:
                if gives_up():
                    raise ClusterClosedError("the cluster was closed while its nodes were busy")
                with suppress(queue.Empty):
                    self._hear(*self._news.get(timeout=LOOK_S), on_report, on_restart)
                self._forget_absent()
        finally:
            self._stop()
        return self._results

    def _start(self, node_id: str) -> None:
        attempt = self._attempts[node_id] = _Attempt(secrets.token_hex(8))

        def make_spec(hello: Hello) -> WorkerSpec:
            attempt.incarnation = hello.incarnation
            return self._make_specs[node_id](hello)

        def hear(news: News) -> None:
            self._news.put((node_id, attempt, news))

        try:
            self._plane.start_worker(node_id, attempt.worker_id, make_spec, hear)
        except RackError:
            attempt.has_ended = True
            raise

    def _hear(
        self,
        node_id: str,
        attempt: _Attempt,
        news: News,
        on_report: Callable[[str, Report], None],
        on_restart: Callable[[str], None],
    ) -> None:
        if isinstance(news, str):
            attempt.has_ended = True
        if node_id not in self._open or attempt is not self._attempts[node_id]:
            return
        if isinstance(news, str):
            if self._goes_on(node_id, attempt, news):
                self._start(node_id)
                on_restart(node_id)
        elif isinstance(news, Failed):
            self._failed(node_id, news)
        elif isinstance(news, self._result):
            self._results[node_id] = news
            self._open.discard(node_id)
        elif not isinstance(news, WorkerStarted):
            on_report(node_id, news)

    def _goes_on(self, node_id: str, attempt: _Attempt, what: str) -> bool:
        """Whether a process that has ended without a result is started again."""
        name = self._plane.name_of(node_id)
        if node_id in self._optional:
            self._open.discard(node_id)
            return False
        if self._plane.is_revoked(node_id):
            raise RackError(f"{name} was revoked: start again to place its layers elsewhere")
        hello = self._plane.hello(node_id)
        # What goes with its machine is not the process's fault.
        if hello is not None and hello.incarnation == attempt.incarnation:
            self._num_restarts[node_id] += 1
        if self._num_restarts[node_id] > MAX_RESTARTS:
            count = self._num_restarts[node_id]
            raise FetchError(f"{name}: the process {what}; it did not get on in {count} attempts")
        return True

    def _failed(self, node_id: str, failure: Failed) -> None:
        if node_id in self._optional:
            self._open.discard(node_id)
            return
        kind = DiskFullError if failure.kind == DiskFullError.__name__ else FetchError
        raise kind(f"{self._plane.name_of(node_id)}: {failure.message}")

    def _forget_absent(self) -> None:
        """Nodes that are not waited for and went before they had heard what to do."""
        for node_id in self._open & self._optional:
            if self._plane.hello(node_id) is None:
                self._plane.stop_worker(node_id, self._attempts[node_id].worker_id)
                self._open.discard(node_id)

    def _stop(self) -> None:
        """End what still runs, so that it is out of the way of whatever is done next."""
        with suppress(RackError):
            for node_id in self._open:
                attempt = self._attempts.get(node_id)
                if attempt is not None:
                    self._plane.stop_worker(node_id, attempt.worker_id)
        give_up = time.monotonic() + STOP_GRACE_S
        while self._is_anything_left() and time.monotonic() < give_up:
            with suppress(queue.Empty):
                _, attempt, news = self._news.get(timeout=LOOK_S)
                attempt.has_ended = attempt.has_ended or isinstance(news, str)

    def _is_anything_left(self) -> bool:
        return any(
            not attempt.has_ended and self._plane.hello(node_id) is not None
            for node_id, attempt in self._attempts.items()
        )
