"""Errors as HTTP answers, in the shape of the dialect that was spoken."""

import logging
import math
import re
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tbcluster.errors import (
    ClusterClosedError,
    ContextLengthError,
    DoesNotFitError,
    ModelLoadingError,
    ModelNotLoadedError,
    NoRoomError,
    OutOfTimeError,
    QueueFullError,
    QueueTimeError,
    RequestError,
    SlowReaderError,
    StageLostError,
    StarvedError,
    TbclusterError,
    UnknownModelError,
)

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5
# Nginx's word for a client that did not wait for its answer.
CLIENT_CLOSED_REQUEST = 499
MAX_SHOWN_VALUE = 60
MAX_SHOWN_NAME = 100
MAX_MESSAGE = 2000
_FILES = (".json", ".safetensors", ".txt", ".model", ".py", ".part", ".jinja")
# An absolute path, and neither an address nor an endpoint of this server.
_PATH = re.compile(r"(?<![\w/.~*:])/(?!(?:v1|api)/)[^\s/'\"`;,:()]+(?:/[^\s/'\"`;,:()]+)+")
# Every client of Anthropic's dialect sends it, and no other.
VERSION_HEADER = b"anthropic-version"

# First match wins: (error, status, type, code).
_ANSWERS: list[tuple[type[Exception], int, str, str | None]] = [
    (UnknownModelError, 404, "invalid_request_error", "model_not_found"),
    (ModelNotLoadedError, 404, "invalid_request_error", "model_not_loaded"),
    (ContextLengthError, 400, "invalid_request_error", "context_length_exceeded"),
    (QueueFullError, 429, "rate_limit_error", "queue_full"),
    (RequestError, 400, "invalid_request_error", None),
    (ModelLoadingError, 503, "server_error", "loading"),
    (NoRoomError, 503, "server_error", "no_room"),
    # A model that fits nowhere fits no better the next time.
    (DoesNotFitError, 507, "server_error", "does_not_fit"),
    (StageLostError, 503, "server_error", "stage_lost"),
    (StarvedError, 503, "server_error", "starved"),
    (QueueTimeError, 503, "server_error", "queue_timeout"),
    (OutOfTimeError, 504, "server_error", "request_timeout"),
    (SlowReaderError, 408, "invalid_request_error", "slow_reader"),
    (ClusterClosedError, 503, "server_error", "shutting_down"),
    (TbclusterError, 500, "server_error", None),
]
# Status -> Anthropic's name for it; other 4xx are invalid requests, other 5xx the server's fault.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# OpenAI's and Anthropic's clients send again what ended in 5xx, unless they are told not to: what
# ran out of time once would do so again.
_IN_VAIN = {"x-should-retry": "false"}


class Dialect(StrEnum):
    """Whose error shape a path answers in."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"


def dialect_of(path: str) -> Dialect:
    """The dialect that is spoken at a path; OpenAI's where none has it."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Dialect.ANTHROPIC
    if path == "/api" or path.startswith("/api/"):
        return Dialect.OLLAMA
    return Dialect.OPENAI


class Refusal(HTTPException):
    """An answer that is an error.

    Attributes:
        detail: What was wrong and what to do about it.
        kind: OpenAI's name for this sort of error.
        param: The field at fault.
        code: One word for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        if retry_after_s is not None:
            headers = {**(headers or {}), "Retry-After": str(max(1, math.ceil(retry_after_s)))}
        super().__init__(status, shortened(message, MAX_MESSAGE), headers)
        self.kind = kind
        self.param = param if param is None else shortened(param, MAX_SHOWN_NAME)
        self.code = code


def refusal_of(error: TbclusterError) -> Refusal:
    """The answer to a request that ended in `error`."""
    for cause, status, kind, code in _ANSWERS:
        if isinstance(error, cause):
            param = getattr(error, "param", None)
            wait_s = RETRY_AFTER_S if status in (429, 503) else None
            message = str(error) if status < 500 else without_paths(str(error))
            return Refusal(
                status,
                message,
                kind=kind,
                param=param,
                code=code,
                retry_after_s=wait_s,
                headers=_IN_VAIN if status == 504 else None,
            )
    raise AssertionError("TbclusterError is in the table")


def without_paths(text: str) -> str:
    """What went wrong, without where on this machine: of a folder its name is left, of a file that
    of its folder, too."""

    def named(found: re.Match[str]) -> str:
        path = PurePosixPath(found[0])
        return f"{path.parent.name}/{path.name}" if path.suffix in _FILES else path.name

    return _PATH.sub(named, text)


def error_body(
    message: str, kind: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The error object that OpenAI's clients expect."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def body_of(refusal: Refusal, dialect: Dialect, request_id: str | None = None) -> dict[str, Any]:
    """A refusal as a dialect words it. A shape that has no place for the field has it in the
    message."""
    message, param = refusal.detail, refusal.param
    if dialect is Dialect.OPENAI:
        return error_body(message, refusal.kind, param=param, code=refusal.code)
    if param is not None and param not in message:
        message = f"{param}: {message}"
    if dialect is Dialect.OLLAMA:
        return {"error": message}
    otherwise = "invalid_request_error" if refusal.status_code < 500 else "api_error"
    kind = _ANTHROPIC_TYPES.get(refusal.status_code, otherwise)
    return {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": request_id,
    }


def error_event(
    dialect: Dialect, error: TbclusterError, request_id: str | None = None
) -> dict[str, Any]:
    """The body of an error inside a stream that has begun."""
    return body_of(refusal_of(error), dialect, request_id)


def _dialect_in(scope: Mapping[str, Any]) -> Dialect:
    """The dialect of the request of this ASGI scope. Two have the path of models."""
    path = scope["path"]
    if path == "/v1/models" or path.startswith("/v1/models/"):
        is_anthropic = any(name == VERSION_HEADER for name, _ in scope["headers"])
        return Dialect.ANTHROPIC if is_anthropic else Dialect.OPENAI
    return dialect_of(path)


def answer(scope: MutableMapping[str, Any], refusal: Refusal) -> JSONResponse:
    """A refusal as the answer to the request of this ASGI scope."""
    state = scope.setdefault("state", {})
    # Whoever counts refusals sees here what it was.
    state["refused"] = refusal.code or str(refusal.status_code)
    body = body_of(refusal, _dialect_in(scope), state.get("request_id"))
    return JSONResponse(body, refusal.status_code, headers=refusal.headers)


def install(app: FastAPI) -> None:
    """Let every error leave the server in its dialect's shape."""

    @app.exception_handler(TbclusterError)
    async def on_tbcluster_error(request: Request, error: TbclusterError) -> JSONResponse:
        return answer(request.scope, refusal_of(error))

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        message, param = _explain(error)
        return answer(request.scope, Refusal(400, message, param=param))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, Refusal):
            return answer(request.scope, error)
        where = f"{request.method} {shortened(request.url.path, MAX_SHOWN_NAME)}"
        headers = dict(error.headers) if error.headers else None
        refusal = Refusal(error.status_code, f"{where}: {error.detail}", headers=headers)
        return answer(request.scope, refusal)


def client_gone() -> Refusal:
    """The answer that nobody reads."""
    return Refusal(CLIENT_CLOSED_REQUEST, "the client has gone away")


def bug(error: Exception) -> Refusal:
    """The answer when the server itself is at fault, which is logged."""
    logger.error("a request failed unexpectedly", exc_info=error)
    return Refusal(500, "internal error, see the server's log", kind="server_error")


def shortened(text: str, most: int) -> str:
    """`text`, cut where it is longer than anyone would read: what a client sent is not sent back
    at length."""
    return text if len(text) <= most else f"{text[:most]}…"


def _explain(error: RequestValidationError) -> tuple[str, str | None]:
    """The complaint that says most, in words, and the field it is about."""
    complaints = error.errors()
    refused = next((c for c in complaints if c["type"] == "refused"), None)
    if refused is not None:
        return refused["msg"], refused["ctx"]["param"]
    if tuple(complaints[0]["loc"]) == ("body",):
        return "the body must be a JSON object, sent with Content-Type: application/json", None
    # Where a field may be of several types each is complained about: the one that was nearest to
    # right went deepest.
    field = complaints[0]["loc"][:2]
    deepest = max((c for c in complaints if c["loc"][:2] == field), key=lambda c: len(c["loc"]))
    path = _path_in(error.body, deepest)
    param = shortened(".".join(path), MAX_SHOWN_NAME) or None
    if deepest["type"] == "extra_forbidden":
        message = "there is no such field"
    else:
        message = deepest["msg"] + _got(deepest.get("input"))
    return (f"{param}: {message}" if param else message), param


def _path_in(body: Any, complaint: Mapping[str, Any]) -> list[str]:
    """Where in the body a complaint is, without pydantic's names for types in between."""
    *way, last = complaint["loc"][1:] or ("",)
    if not isinstance(body, Mapping):
        return [str(part) for part in (*way, last)]  # a query or path parameter
    path: list[str] = []
    value: Any = body
    for part in way:
        inner = _inside(value, part)
        # The name of a type may be that of a field as well, but leads no further.
        if isinstance(inner, (Mapping, list)):
            path.append(str(part))
            value = inner
    if complaint["type"] == "missing" or _inside(value, last) is not _NOTHING:
        path.append(str(last))
    return path


_NOTHING = object()


def _inside(value: Any, part: str | int) -> Any:
    """What a list or object has there."""
    if isinstance(value, Mapping):
        return value.get(part, _NOTHING)
    if isinstance(value, list) and isinstance(part, int):
        return value[part]
    return _NOTHING


def _got(value: Any) -> str:
    """A wrong value in words, where it is small enough to be read."""
    if not isinstance(value, (str, int, float)) or _is_long(value):
        return ""
    shown = repr(value)
    return f" (got {shown})" if len(shown) <= MAX_SHOWN_VALUE else ""


def _is_long(value: str | float) -> bool:
    # Writing out an integer of thousands of digits takes long, or fails.
    return (
        len(value) > MAX_SHOWN_VALUE
        if isinstance(value, str)
        else isinstance(value, int) and value.bit_length() > 200
    )
