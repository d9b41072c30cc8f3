"""Errors as HTTP answers, in OpenAI's shape."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tbcluster.errors import (
    ClusterClosedError,
    ContextLengthError,
    QueueFullError,
    RequestError,
    StageLostError,
    TbclusterError,
    UnknownModelError,
)

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5
MAX_SHOWN_VALUE = 60

# First match wins: (error, status, type, code).
_ANSWERS: list[tuple[type[Exception], int, str, str | None]] = [
    (UnknownModelError, 404, "invalid_request_error", "model_not_found"),
    (ContextLengthError, 400, "invalid_request_error", "context_length_exceeded"),
    (QueueFullError, 429, "rate_limit_error", "queue_full"),
    (RequestError, 400, "invalid_request_error", None),
    (StageLostError, 503, "server_error", "stage_lost"),
    (ClusterClosedError, 503, "server_error", "shutting_down"),
    (TbclusterError, 500, "server_error", None),
]


def error_body(
    message: str, kind: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The error object that OpenAI's clients expect."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def describe(error: TbclusterError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of an error."""
    for kind, status, name, code in _ANSWERS:
        if isinstance(error, kind):
            param = getattr(error, "param", None)
            return status, error_body(str(error), name, param=param, code=code)
    raise AssertionError("TbclusterError is in the table")


def install(app: FastAPI) -> None:
    """Let every error leave the server in the same shape."""

    @app.exception_handler(TbclusterError)
    async def on_tbcluster_error(_: Request, error: TbclusterError) -> JSONResponse:
        status, body = describe(error)
        headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else None
        return JSONResponse(body, status, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        message, param = _explain(error)
        return JSONResponse(error_body(message, "invalid_request_error", param=param), 400)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}"
        body = error_body(message, "invalid_request_error")
        return JSONResponse(body, error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def on_bug(_: Request, error: Exception) -> JSONResponse:
        logger.error("a request failed unexpectedly", exc_info=error)
        return JSONResponse(error_body("internal error, see the server's log", "server_error"), 500)


def _explain(error: RequestValidationError) -> tuple[str, str | None]:
    """The first complaint in words, and the field it is about."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "syntax error")
        return f"the body is not valid JSON: {reason} at character {first['loc'][-1]}", None
    if first["type"] == "refused":
        return first["msg"], first["ctx"]["param"]
    if tuple(first["loc"]) == ("body",):
        return "the body must be a JSON object, sent with Content-Type: application/json", None
    path = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(path) or None
    message = first["msg"] + _got(first.get("input"))
    return (f"{param}: {message}" if param else message), param


def _got(value: Any) -> str:
    """A wrong value in words, where it is small enough to be read."""
    shown = repr(value)
    is_small = isinstance(value, (str, int, float)) and len(shown) <= MAX_SHOWN_VALUE
    return f" (got {shown})" if is_small else ""
