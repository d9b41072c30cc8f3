"""/models, /models/load and /models/unload, in the shapes of llama.cpp's router."""

import asyncio
from concurrent.futures import Future
from functools import partial
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from tbcluster.cluster.models.models import Models
from tbcluster.server.bodies import JsonRoute
from tbcluster.server.disconnection import unless_disconnected
from tbcluster.server.fields import Body
from tbcluster.server.openai.models import model_list
from tbcluster.server.problems import client_gone


class LoadRequest(Body):
    """Body of POST /models/load; `switch` and `wait` are not llama.cpp's."""

    model: str = Field(min_length=1)
    switch: bool | None = None
    wait: bool | None = None


class UnloadRequest(Body):
    """Body of POST /models/unload; `force` and `wait` are not llama.cpp's."""

    model: str = Field(min_length=1)
    force: bool | None = None
    wait: bool | None = None


def make_router(models: Models) -> APIRouter:
    """The endpoints of all models."""
    router = APIRouter(prefix="/models", route_class=JsonRoute, tags=["Models"])

    @router.get("")
    async def list_models() -> dict[str, Any]:
        """The models that are loaded and those that can be, as /v1/models lists them."""
        return model_list(await run_in_threadpool(models.views), models.created_at)

    @router.post("/load")
    async def load(body: LoadRequest, http: HttpRequest) -> dict[str, bool]:
        """Load a model when its turn comes; its status tells how that goes."""
        ask = partial(models.ask, body.model, makes_room=body.switch is True)
        return await success(await run_in_threadpool(ask), http, waits=body.wait is True)

    @router.post("/unload")
    async def unload(body: UnloadRequest, http: HttpRequest) -> dict[str, bool]:
        """Unload a model once its requests have ended, or stop loading it."""
        ask = partial(models.unload, body.model, force=body.force is True)
        return await success(await run_in_threadpool(ask), http, waits=body.wait is True)

    return router


async def success(asked: "Future[None]", http: HttpRequest, *, waits: bool) -> dict[str, bool]:
    """The answer, at once or when it is done.

    Raises:
        TbclusterError: It failed while it was waited for.
    """
    if waits or asked.done():
        waiting = asyncio.shield(asyncio.wrap_future(asked))
        if await unless_disconnected(http, _finished(waiting)) is None:
            raise client_gone()
    return {"success": True}


async def _finished(waiting: "asyncio.Future[None]") -> bool:
    await waiting
    return True
