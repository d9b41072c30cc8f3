"""`GET /live`: what is seen now, once or once a second."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from tbcluster.server.live.feed import MAX_WATCHERS, Feed
from tbcluster.server.problems import Refusal
from tbcluster.server.sse import MEDIA_TYPE

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {MEDIA_TYPE: {}, "application/json": {}},
        "description": "A view each second as server-sent events, or one as JSON.",
    },
    503: {"description": "Nothing was looked at yet, or too many are looking."},
}


def make_router(feed: Feed) -> APIRouter:
    """The endpoint of one server's views."""
    router = APIRouter(tags=["Status"])

    @router.get("/live", response_class=Response, responses=_ANSWERS)
    async def live(
        once: Annotated[bool, Query(description="One view as JSON, and no stream.")] = False,
    ) -> Response:
        """The rack at this moment: nodes, links, stages, rates, events. It holds no text of
        requests."""
        if once:
            if feed.newest is None:
                raise _not_now("nothing was looked at yet: ask again in a second")
            return Response(msgspec.json.encode(feed.newest), media_type="application/json")
        if feed.is_full:
            raise _not_now(f"{MAX_WATCHERS} are looking already: close one, or use ?once=true")
        return StreamingResponse(
            feed.watch(),
            media_type=MEDIA_TYPE,
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    return router


def _not_now(message: str) -> Refusal:
    return Refusal(503, message, kind="server_error", code="not_now", retry_after_s=1)
