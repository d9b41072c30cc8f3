"""/health, /ready and /metrics: for people, load balancers and Prometheus."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.status import ClusterState
from tbcluster.server.draining import Drain
from tbcluster.server.metrics import CONTENT_TYPE, Metrics

_NOT_NOW: dict[int | str, dict[str, Any]] = {
    503: {"description": "Requests are not answered now; `status` says why."}
}


def make_router(cluster: Cluster, metrics: Metrics, drain: Drain, *, asks_keys: bool) -> APIRouter:
    """The endpoints of one cluster."""
    router = APIRouter(tags=["Status"])

    @router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def root() -> Response:
        """Ollama's own command line asks here whether anyone is there."""
        return PlainTextResponse("tbcluster is running; its page is at /docs\n")

    @router.get("/health", responses=_NOT_NOW)
    async def health(http: Request) -> JSONResponse:
        """Whether the model is loaded and well, and the state of each stage. Where keys are asked
        for, a request without one learns the status alone."""
        word = _word(cluster)
        is_stranger = asks_keys and http.state.caller is None
        body = {"status": word} if is_stranger else health_body(cluster)
        return JSONResponse(body, 200 if word == "ok" else 503)

    @router.get("/ready", responses=_NOT_NOW)
    async def ready() -> JSONResponse:
        """Whether new requests are answered now."""
        word = "draining" if drain.is_draining else _word(cluster)
        return JSONResponse({"status": word}, 200 if word == "ok" else 503)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
    )
    async def metrics_page() -> Response:
        """Everything that is measured, for Prometheus."""
        return Response(metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    return router


def health_body(cluster: Cluster) -> dict[str, Any]:
    """Whether requests are answered now, and the state of each stage."""
    status = cluster.status()
    return {
        "status": _word(cluster),
        "model": status.model,
        "num_requests": status.num_requests,
        "error": status.error,
        "kv_cache": _kv_body(cluster),
        "stages": [
            {
                "index": stage.index,
                "layers": [stage.layers.start, stage.layers.end],
                "state": stage.state.value,
                "memory_bytes": stage.memory_bytes,
                "num_restarts": stage.num_restarts,
                "pid": stage.pid,
            }
            for stage in status.stages
        ],
    }


def _word(cluster: Cluster) -> str:
    state = cluster.status().state
    return "ok" if state is ClusterState.READY else state.value


def _kv_body(cluster: Cluster) -> dict[str, Any]:
    """What the KV caches hold, and may hold, on each stage."""
    statistics = cluster.statistics()
    return {
        "used_bytes": statistics.kv_used_bytes,
        "budget_bytes": statistics.kv_budget_bytes,
        "num_prefixes": statistics.num_prefixes,
    }
