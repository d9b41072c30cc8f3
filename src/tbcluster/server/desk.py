"""Finds for each request the model that it names, and keeps that loaded while it is answered."""

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress

from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from tbcluster.cluster.models.models import Models
from tbcluster.cluster.models.shelf import Use
from tbcluster.errors import ModelLoadingError, RequestError, TbclusterError
from tbcluster.server.disconnection import unless_disconnected
from tbcluster.server.intake import Intake
from tbcluster.server.problems import client_gone


class UseGuard:
    """Ends, when a request has been answered to its last byte, its use of models."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through."""
        uses: list[Use] = []
        scope.setdefault("state", {})["uses"] = uses
        try:
            await self._app(scope, receive, send)
        finally:
            for use in uses:
                use.end()
            # A connection keeps its last request for as long as it is idle.
            uses.clear()


class Desk:
    """Takes requests in for all models.

    Args:
        load_wait_s: How long a request waits for its model to be loaded.
    """

    def __init__(self, models: Models, load_wait_s: float) -> None:
        self.models = models
        self._load_wait_s = load_wait_s
        self._intakes: dict[str, Intake] = {}
        self._making = threading.Lock()

    async def intake(self, http: HttpRequest, name: str | None) -> Intake:
        """The intake of a model, which stays loaded until the request has ended.

        Args:
            name: None for the first model that was given.

        Raises:
            UnknownModelError: There is no such model.
            ModelNotLoadedError: It is not loaded, and requests load none.
            ModelLoadingError: It is still being loaded, and that takes long.
            TbclusterError: It cannot be loaded, for this reason.
        """
        use = await self.use(http, name)
        known = self._intakes.get(use.name)
        if known is not None and known.cluster is use.cluster:
            return known
        return await run_in_threadpool(self._intake_of, use)

    async def use(self, http: HttpRequest, name: str | None) -> Use:
        """Like `intake`, without what it takes to ask the model for anything."""
        name = self.models.default if name is None else name
        if name is None:
            raise RequestError("no model is named, and none is loaded: name one", "model")
        use = self.models.use(name) or await self._when_loaded(http, name)
        http.state.uses.append(use)
        return use

    async def _when_loaded(self, http: HttpRequest, name: str) -> Use:
        asked = await run_in_threadpool(self.models.ask_for_use, name)
        waiting = asyncio.shield(asyncio.wrap_future(asked))
        try:
            use = await unless_disconnected(http, asyncio.wait_for(waiting, self._load_wait_s))
        except TimeoutError as error:
            asked.add_done_callback(_give_back)
            doing = (await run_in_threadpool(self.models.view, name)).doing
            raise ModelLoadingError(
                f"{name} is still being loaded ({doing}): send the request again later"
            ) from error
        except asyncio.CancelledError:
            asked.add_done_callback(_give_back)
            raise
        if use is None:
            asked.add_done_callback(_give_back)
            raise client_gone()
        return use

    def _intake_of(self, use: Use) -> Intake:
        """Made once for each cluster, since reading a chat template takes its time. Those of
        clusters that have gone, go too."""
        with self._making:
            loaded = self.models.clusters()
            kept = {n: i for n, i in self._intakes.items() if loaded.get(n) is i.cluster}
            known = kept.get(use.name)
            if known is None:
                known = kept[use.name] = Intake(use.cluster, use.name)
            self._intakes = kept
            return known


def _give_back(asked: "Future[Use]") -> None:
    """Nobody waits for it any more."""
    with suppress(TbclusterError):
        asked.result().end()
