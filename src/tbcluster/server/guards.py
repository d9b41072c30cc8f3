"""What each request passes before it reaches an endpoint. Plain ASGI: a token costs nothing."""

import asyncio
import logging
import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tbcluster.server.draining import Drain
from tbcluster.server.metrics import Metrics
from tbcluster.server.problems import Refusal, answer, bug

access_logger = logging.getLogger("tbcluster.access")

SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# A body that comes more slowly than this is meant to hold the connection.
MIN_BYTES_PER_S = 16 * 1024
# What answers while the server finishes its last requests.
ALWAYS_ANSWERED = {"/health", "/ready", "/metrics"}


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this name (in lower case), or None."""
    return next((value for key, value in scope["headers"] if key == name), None)


def new_request_id() -> str:
    """An id that no other request has."""
    return secrets.token_hex(16)


def is_ambiguous(scope: Scope) -> bool:
    """Whether the body's length is told in two ways: a proxy that believes the other one would take
    a part of this request for the next."""
    ways = (b"content-length", b"transfer-encoding")
    return all(header(scope, name) is not None for name in ways)


def _ambiguous() -> Refusal:
    return Refusal(
        400,
        "Content-Length and Transfer-Encoding exclude each other: send one of them",
        code="invalid_http",
        headers={"Connection": "close"},
    )


class RequestGate:
    """The outermost: gives each request its id, answers where the server itself is at fault, counts
    what is refused and logs what was asked.

    Sets `request.state.request_id`, `arrived_at` (on the metrics' clock), and `caller` to None
    until someone is known.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, logs_access: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._logs_access = logs_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        given = header(scope, b"x-request-id")
        is_sane = given is not None and SANE_ID.fullmatch(given) is not None
        state["request_id"] = given.decode() if given and is_sane else new_request_id()
        state["caller"] = None
        id_header = (b"x-request-id", state["request_id"].encode())
        state["arrived_at"] = started_at = self._metrics.clock()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), id_header]}
            await send(message)

        try:
            if is_ambiguous(scope):
                await answer(scope, _ambiguous())(scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        except (
            Exception
        ) as error:  # the top of a request: whatever it is, it is logged and answered
            if status:
                raise
            await answer(scope, bug(error))(scope, receive, send_with_id)
        finally:
            if "refused" in state:
                self._metrics.reject(state["refused"])
            if self._logs_access:
                self._log(scope, status, self._metrics.clock() - started_at)

    def _log(self, scope: Scope, status: int, took_s: float) -> None:
        """One line; neither the query nor anything that was said is in it."""
        state = scope["state"]
        caller = state.get("caller")
        path = scope.get("raw_path", b"").decode("ascii", "replace")
        name = caller.name if caller else "-"
        access_logger.info(
            "%s %s %s %.0f ms key=%s id=%s",
            scope["method"],
            path,
            status or "-",
            took_s * 1000,
            name,
            state["request_id"],
            extra={
                "event": "access",
                "fields": {
                    "method": scope["method"],
                    "path": path,
                    "status": status,
                    "duration_ms": round(took_s * 1000, 1),
                    "key": name,
                    "request_id": state["request_id"],
                },
            },
        )


class DrainGuard:
    """Refuses new requests while the server finishes its last ones."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or not."""
        if self._drain.is_draining and scope["path"] not in ALWAYS_ANSWERED:
            refusal = Refusal(
                503,
                "the server is shutting down: send the request again later",
                kind="server_error",
                code="shutting_down",
                retry_after_s=5,
                headers={"Connection": "close"},
            )
            await answer(scope, refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class BodyGuard:
    """Bounds how long a body is, how long one waits for the rest of it, and how slowly it comes."""

    def __init__(self, app: ASGIApp, max_bytes: int, silence_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._silence_s = silence_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through whose body is watched while it is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = header(scope, b"content-length")
        if length is not None and int(length) > self._max_bytes:
            await answer(scope, self._too_large())(scope, receive, send)
            return
        num_bytes, is_whole = 0, False
        clock = asyncio.get_running_loop().time
        begun_at = clock()

        async def watched() -> Message:
            nonlocal num_bytes, is_whole
            if is_whole:
                return await receive()
            left_s = begun_at + self._silence_s + num_bytes / MIN_BYTES_PER_S - clock()
            try:
                async with asyncio.timeout(min(left_s, self._silence_s)):
                    message = await receive()
            except TimeoutError as error:
                raise self._too_slow() from error
            if message["type"] == "http.request":
                num_bytes += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                if num_bytes > self._max_bytes:
                    raise self._too_large()
            return message

        await self._app(scope, watched, send)

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            f"the body is longer than {self._max_bytes:,} bytes: send less at once",
            code="body_too_large",
        )

    def _too_slow(self) -> Refusal:
        return Refusal(
            408,
            f"the body came too slowly, or nothing of it for {self._silence_s:g} seconds: send the "
            "request again",
            code="body_timeout",
            headers={"Connection": "close"},
        )
