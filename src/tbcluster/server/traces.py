"""/traces: where the newest requests were, step by step. No text of them is kept."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.opening import THIS_MACHINE
from tbcluster.cluster.stage_status import StageStatus
from tbcluster.core import Request
from tbcluster.errors import ClusterClosedError
from tbcluster.server.problems import Refusal
from tbcluster.tracing.building import Head, request_trace, summary
from tbcluster.tracing.records import ReplicaTrace
from tbcluster.tracing.trace import RequestSummary, RequestTrace, TracedStage

MAX_REQUESTS = 1024
NEWEST = "last"
MANY = 20

Choices = list[tuple[ReplicaTrace, ...]]


@dataclass(frozen=True, slots=True)
class _Entry:
    head: Head
    engine_ids: tuple[str, ...]


class TraceBook:
    """Which of the engines' requests an HTTP request became; the newest ones.

    Args:
        clusters: Tells those that are loaded, by their models' names.
    """

    def __init__(self, clusters: Callable[[], Mapping[str, Cluster]]) -> None:
        self._clusters = clusters
        self._lock = threading.Lock()
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._num_entered = 0

    def enter(
        self, http: HttpRequest, answer_id: str, model: str, requests: Sequence[Request]
    ) -> None:
        """Remember an HTTP request that was let in."""
        now = time.monotonic()
        state = http.state
        arrived_at: float = getattr(state, "arrived_at", now)
        head = Head(
            request_id=getattr(state, "request_id", ""),
            answer_id=answer_id,
            endpoint=http.scope["path"],
            model=model,
            at=time.time() - (now - arrived_at),
            arrived_at=arrived_at,
        )
        entry = _Entry(head, tuple(request.request_id for request in requests))
        with self._lock:
            self._num_entered += 1
            self._entries[self._num_entered] = entry
            if len(self._entries) > MAX_REQUESTS:
                self._entries.popitem(last=False)

    def newest(self, count: int) -> tuple[RequestSummary, ...]:
        """Those whose steps may still be known, newest first."""
        return tuple(self._summaries(count))

    def find(self, name: str) -> RequestTrace | None:
        """What is known of a request by one of its ids, the newest where several have it, or of the
        newest of all as `last`; None where nothing is."""
        for entry in self._newest_first():
            head = entry.head
            if name not in (NEWEST, head.request_id, head.answer_id):
                continue
            cluster = self._clusters().get(head.model)
            choices = _choices(cluster, entry, with_steps=True)
            if cluster is not None and choices:
                return request_trace(head, choices, _stages(cluster.status().stages))
            if name != NEWEST:
                return None
        return None

    def _summaries(self, count: int) -> Iterator[RequestSummary]:
        for entry in self._newest_first():
            choices = _choices(self._clusters().get(entry.head.model), entry, with_steps=False)
            if choices:
                yield summary(entry.head, choices)
                count -= 1
            if count == 0:
                return

    def _newest_first(self) -> list[_Entry]:
        with self._lock:
            return list(reversed(self._entries.values()))


def _choices(cluster: Cluster | None, entry: _Entry, *, with_steps: bool) -> Choices:
    """What is known of each of a request's choices; those that never got to an engine are left
    out."""
    if cluster is None:
        return []
    try:
        known = [cluster.trace(one, with_steps=with_steps) for one in entry.engine_ids]
    except ClusterClosedError:
        return []
    return [choice for choice in known if choice]


def _stages(statuses: Sequence[StageStatus]) -> list[TracedStage]:
    numbers: dict[int, int] = {}
    stages = []
    for status in statuses:
        number = numbers[status.replica] = numbers.get(status.replica, -1) + 1
        layers = status.layers
        node = status.node or THIS_MACHINE
        stages.append(TracedStage(number, status.replica, node, layers.start, layers.end - 1))
    return stages


def make_router(book: TraceBook) -> APIRouter:
    """The endpoints of one server's requests."""
    router = APIRouter(prefix="/traces", tags=["Status"])

    @router.get("", response_class=Response, responses=_JSON)
    async def newest(
        limit: Annotated[int, Query(ge=1, le=MAX_REQUESTS, description="How many.")] = MANY,
    ) -> Response:
        """The newest requests, newest first: their ids, tokens and times."""
        return _json(await run_in_threadpool(book.newest, limit))

    @router.get("/{request_id}", response_class=Response, responses=_JSON)
    async def trace(request_id: str) -> Response:
        """A request's steps through the stages, by its `x-request-id`, the `id` of its answer, or
        `last`."""
        found = await run_in_threadpool(book.find, request_id)
        if found is None:
            raise Refusal(404, _unknown(request_id), code="trace_not_found")
        return _json(found)

    return router


_JSON: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}}}}


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _unknown(name: str) -> str:
    if name == NEWEST:
        return "no request has come yet"
    return (
        f"no request {name[:100]!r} is known: the newest {MAX_REQUESTS} are kept while their model "
        "is loaded. `GET /traces` lists them"
    )
