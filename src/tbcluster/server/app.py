"""The web application: every endpoint, and what each request passes on its way there."""

from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

from tbcluster.cluster.models.models import Models
from tbcluster.server import embeddings, energy, model_endpoints, problems, status, text_endpoints
from tbcluster.server.access import HostGuard, KeyGuard
from tbcluster.server.anthropic import router as anthropic
from tbcluster.server.dashboard.routes import add_page
from tbcluster.server.desk import Desk, UseGuard
from tbcluster.server.draining import Drain
from tbcluster.server.error_docs import responses
from tbcluster.server.guards import BodyGuard, DrainGuard, RequestGate
from tbcluster.server.live import endpoint as live
from tbcluster.server.live.feed import Feed
from tbcluster.server.metrics import Metrics
from tbcluster.server.ollama import router as ollama
from tbcluster.server.openai import router as openai
from tbcluster.server.options import ServerOptions
from tbcluster.server.responses import router as openai_responses
from tbcluster.server.starting import NotYet
from tbcluster.server.traces import TraceBook
from tbcluster.server.traces import make_router as make_traces_router

DESCRIPTION = """\
Language models, served from several machines as one. Fields that are not served are refused by
name. Every answer carries an `x-request-id`.
"""
# Headers of answers that scripts of other origins may read.
EXPOSED_HEADERS = ["x-request-id", "retry-after"] + [
    f"x-ratelimit-{fact}-{unit}"
    for fact in ("limit", "remaining", "reset")
    for unit in ("requests", "tokens")
]


def create_app(
    models: Models, options: ServerOptions, metrics: Metrics, drain: Drain, feed: Feed
) -> FastAPI:
    """The HTTP endpoints of models. `metrics` counts, `drain` ends it, `feed` has what is seen."""
    app = FastAPIOffline(
        title="tbcluster",
        version=version("tbcluster"),
        description=DESCRIPTION,
        redoc_url=None,
        responses=responses(),
    )
    # The endpoints find them there.
    app.state.metrics = metrics
    app.state.options = options
    app.state.traces = traces = TraceBook(models.clusters)
    problems.install(app)
    add_page(app, otherwise=status.ROOT)
    desk = Desk(models, options.load_wait_s)
    app.include_router(openai.make_router(desk))
    app.include_router(openai_responses.make_router(desk))
    app.include_router(embeddings.make_router(desk))
    app.include_router(anthropic.make_router(desk))
    app.include_router(ollama.make_router(desk))
    app.include_router(model_endpoints.make_router(models))
    app.include_router(text_endpoints.make_router(desk))
    app.include_router(
        status.make_router(models, metrics, drain, asks_keys=options.keys is not None)
    )
    app.include_router(live.make_router(feed))
    app.include_router(make_traces_router(traces))
    if metrics.energy is not None:
        app.include_router(energy.make_router(metrics.energy))
    app.add_middleware(UseGuard)
    _guard(app, options, metrics, drain)
    return app


def create_starting_app(
    models: Models, options: ServerOptions, metrics: Metrics, drain: Drain, feed: Feed
) -> FastAPI:
    """What stands in for the endpoints until the first model is loaded: behind the same guards, it
    tells how far that is."""
    app = FastAPI(openapi_url=None)
    app.include_router(
        status.make_router(
            models, metrics, drain, asks_keys=options.keys is not None, is_open=False
        )
    )
    app.include_router(live.make_router(feed))
    not_yet = NotYet(models)
    add_page(app, otherwise=not_yet)
    app.mount("/", not_yet)
    _guard(app, options, metrics, drain)
    return app


def _guard(app: Starlette, options: ServerOptions, metrics: Metrics, drain: Drain) -> None:
    """Put the guards around the application. The last one added is met first."""
    app.add_middleware(
        BodyGuard, max_bytes=options.max_body_bytes, silence_s=options.body_timeout_s
    )
    if options.keys is not None:
        app.add_middleware(KeyGuard, keys=options.keys)
    elif options.is_local:
        app.add_middleware(HostGuard)
    app.add_middleware(DrainGuard, drain=drain)
    if options.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(RequestGate, metrics=metrics, logs_access=options.logs_access)
