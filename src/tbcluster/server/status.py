"""/health, /ready and /metrics: for people, load balancers and Prometheus."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.models import Models
from tbcluster.cluster.models.residency import ModelState
from tbcluster.cluster.status import ClusterState, ClusterStatus
from tbcluster.errors import ClusterClosedError
from tbcluster.server.draining import Drain
from tbcluster.server.metrics import CONTENT_TYPE, Metrics
from tbcluster.server.problems import without_paths

OK = "ok"
_NOT_NOW: dict[int | str, dict[str, Any]] = {
    503: {"description": "Requests are not answered now; `status` says why."}
}


# Ollama's own command line asks at / whether anyone is there.
ROOT = PlainTextResponse("tbcluster is running; a browser finds its page here\n")


def make_router(
    models: Models, metrics: Metrics, drain: Drain, *, asks_keys: bool, is_open: bool = True
) -> APIRouter:
    """The endpoints of all models.

    Args:
        is_open: Whether there are other endpoints; without them nothing is said to be ready.
    """
    router = APIRouter(tags=["Status"])
    word = partial(server_word, models, is_open=is_open)

    @router.get("/health", responses=_NOT_NOW)
    async def health(http: Request) -> JSONResponse:
        """Whether the model is loaded and well, and the state of each stage. Where keys are asked
        for, a request without one learns the status alone."""
        body: dict[str, Any] = {"status": word()}
        if not asks_keys or http.state.caller is not None:
            body |= await run_in_threadpool(health_facts, models)
        return JSONResponse(body, _code(body["status"]))

    @router.get("/ready", responses=_NOT_NOW)
    async def ready() -> JSONResponse:
        """Whether new requests are answered now."""
        now = "draining" if drain.is_draining else word()
        return JSONResponse({"status": now}, _code(now))

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
    )
    async def metrics_page() -> Response:
        """Everything that is measured, for Prometheus."""
        return Response(metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    return router


def server_word(models: Models, *, is_open: bool) -> str:
    """How the server is, in a word; "ok" where it answers.

    Args:
        is_open: Whether requests are let through to the models.
    """
    if not is_open:
        state = models.status().state
        is_up = state in (ClusterState.READY, ClusterState.RECOVERING)
        return ClusterState.STARTING.value if is_up else state.value
    states = [cluster.status().state for cluster in models.clusters().values()]
    if ClusterState.READY in states or models.rules.loads_on_use:
        return OK
    if ClusterState.RECOVERING in states:
        return ClusterState.RECOVERING.value
    none = ModelState.LOADING if models.is_loading else ModelState.UNLOADED
    return next((state.value for state in states), none.value)


def health_facts(models: Models) -> dict[str, Any]:
    """What the first model is doing, and the state of each stage; where there may be several, each
    that is loaded or being loaded."""
    clusters = models.clusters()
    first = clusters.get(models.default or "")
    facts = _facts(models.status(), first)
    if models.is_alone:
        return facts
    each = {name: _model_facts(cluster) for name, cluster in models.begun().items()}
    return {**facts, "models": each}


def _model_facts(cluster: Cluster) -> dict[str, Any]:
    status = cluster.status()
    return {"status": _word(status.state), **_facts(status, cluster)}


def _word(state: ClusterState) -> str:
    return OK if state is ClusterState.READY else state.value


def _code(word: str) -> int:
    """While stages are being replaced nothing is refused: requests wait, and the server is best
    left alone."""
    return 200 if word in (OK, ClusterState.RECOVERING.value) else 503


def _facts(status: ClusterStatus, cluster: Cluster | None) -> dict[str, Any]:
    return {
        "doing": status.doing,
        "model": status.model,
        "num_requests": status.num_requests,
        "error": None if status.error is None else without_paths(status.error),
        "kv_cache": None if cluster is None else _kv_body(cluster),
        "stages": [
            {
                "index": stage.index,
                "replica": stage.replica,
                "node": stage.node,
                "layers": [stage.layers.start, stage.layers.end],
                "state": stage.state.value,
                "memory_bytes": stage.memory_bytes,
                "num_restarts": stage.num_restarts,
                "pid": stage.pid,
            }
            for stage in status.stages
        ],
    }


def _kv_body(cluster: Cluster) -> dict[str, Any] | None:
    """What the KV caches hold, and may hold, on each stage; None while there are no stages."""
    try:
        statistics = cluster.statistics()
    except ClusterClosedError:
        return None
    return {
        "used_bytes": statistics.kv_used_bytes,
        "budget_bytes": statistics.kv_budget_bytes,
        "num_prefixes": statistics.num_prefixes,
    }
