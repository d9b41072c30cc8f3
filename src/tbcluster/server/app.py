"""The web application and the loop that serves it."""

import errno
import os
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from tbcluster.cluster.cluster import Cluster, ClusterState
from tbcluster.errors import ListenError
from tbcluster.server import openai, problems

# On Ctrl-C open streams are given this long before they are cut.
SHUTDOWN_GRACE_S = 2


def create_app(cluster: Cluster) -> FastAPI:
    """The HTTP endpoints of a running cluster."""
    app = FastAPI(title="tbcluster", docs_url=None, redoc_url=None)
    problems.install(app)
    app.include_router(openai.make_router(cluster))

    @app.get("/health")
    async def health() -> JSONResponse:
        body = health_body(cluster)
        return JSONResponse(body, 200 if body["status"] == "ok" else 503)

    return app


def health_body(cluster: Cluster) -> dict[str, Any]:
    """Whether requests are answered now, and the state of each stage."""
    status = cluster.status()
    return {
        "status": "ok" if status.state is ClusterState.READY else status.state.value,
        "model": status.model,
        "num_requests": status.num_requests,
        "error": status.error,
        "kv_cache": kv_body(cluster),
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


def kv_body(cluster: Cluster) -> dict[str, Any]:
    """What the KV caches hold, and may hold, on each stage."""
    statistics = cluster.statistics()
    return {
        "used_bytes": statistics.kv_used_bytes,
        "budget_bytes": statistics.kv_budget_bytes,
        "num_prefixes": statistics.num_prefixes,
    }


def listen(host: str, port: int) -> socket.socket:
    """Bind now, so that a port in use is known before a model is loaded.

    Raises:
        ListenError: The address is in use or not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number and number > 0 else error
        advice = (
            "choose another --port, or 0 for a free one"
            if number == errno.EADDRINUSE
            else "choose another --host or --port"
        )
        raise ListenError(f"cannot listen on {host}:{port} ({reason}): {advice}") from error


def run(cluster: Cluster, listener: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    config = uvicorn.Config(
        create_app(cluster),
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
    )
    _Server(config, cluster).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends open answers with an error of theirs before it cuts connections."""

    def __init__(self, config: uvicorn.Config, cluster: Cluster) -> None:
        super().__init__(config)
        self._cluster = cluster

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._cluster.end_requests("the server is shutting down")
        await super().shutdown(sockets)
