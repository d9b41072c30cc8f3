"""Hands out the page and its files. They hold no data, and run nothing that is not among them."""

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

FILES = Path(__file__).parent / "ui"
PREFIX = "/ui"
PAGE = "index.html"
# No script but our own files, nothing from elsewhere, in nobody's frame.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, and sent again only where an upgrade has changed it.
    "Cache-Control": "no-cache",
}


class PageFiles(StaticFiles):
    """The files beside the page."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file, or that it is still the same."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response


class FrontPage:
    """What is at `/`: for browsers the page, for others what was there before."""

    def __init__(self, otherwise: ASGIApp) -> None:
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if _is_for_page(scope):
            page = FileResponse(FILES / PAGE, headers={**HEADERS, "Vary": "Accept"})
            await page(scope, receive, send)
        else:
            await self._otherwise(scope, receive, send)


def is_of_page(scope: Scope) -> bool:
    """Whether a request is for the page or one of its files."""
    path: str = scope["path"]
    return path.startswith(f"{PREFIX}/") or (path == "/" and _is_for_page(scope))


def _is_for_page(scope: Scope) -> bool:
    """Whether a browser asks."""
    accepts = Headers(scope=scope).get("accept", "")
    return scope["method"] in ("GET", "HEAD") and "text/html" in accepts


def add_page(app: Starlette, otherwise: ASGIApp) -> None:
    """Serve the page at `/` to browsers, and `otherwise` to whoever else asks there."""
    app.add_route("/", FrontPage(otherwise), ["GET", "HEAD"], include_in_schema=False)  # type: ignore[arg-type]
    app.mount(PREFIX, PageFiles(directory=FILES), name="page")
