"""Errors in the shape of each dialect."""

import json
from typing import Any

import pytest
from fastapi import FastAPI

from tbcluster.errors import (
    ClusterClosedError,
    ContextLengthError,
    ModelError,
    OutOfTimeError,
    QueueFullError,
    QueueTimeError,
    RequestError,
    SlowReaderError,
    StageError,
    StageLostError,
    StarvedError,
    TbclusterError,
    UnknownModelError,
)
from tbcluster.server.error_docs import responses
from tbcluster.server.problems import (
    MAX_MESSAGE,
    Dialect,
    Refusal,
    answer,
    body_of,
    dialect_of,
    error_event,
    refusal_of,
)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", Dialect.OPENAI),
        ("/v1/messages", Dialect.ANTHROPIC),
        ("/v1/messages/count_tokens", Dialect.ANTHROPIC),
        ("/v1/messagesx", Dialect.OPENAI),
        ("/api/chat", Dialect.OLLAMA),
        ("/apis", Dialect.OPENAI),
        ("/", Dialect.OPENAI),
    ],
)
def test_the_path_says_the_dialect(path: str, dialect: Dialect) -> None:
    assert dialect_of(path) is dialect


@pytest.mark.parametrize(
    ("path", "headers", "is_anthropic"),
    [
        ("/v1/models/x", [(b"anthropic-version", b"2023-06-01")], True),
        ("/v1/models", [(b"anthropic-version", b"2023-06-01")], True),
        ("/v1/models/x", [(b"accept", b"*/*")], False),
        ("/v1/completions", [(b"anthropic-version", b"2023-06-01")], False),
    ],
)
def test_models_are_of_two_dialects(
    path: str, headers: list[tuple[bytes, bytes]], is_anthropic: bool
) -> None:
    refused = answer({"path": path, "headers": headers}, Refusal(404, "there is none"))
    assert (json.loads(refused.body).get("type") == "error") is is_anthropic


@pytest.mark.parametrize(
    ("error", "status", "anthropic", "code"),
    [
        (UnknownModelError("a", "b"), 404, "not_found_error", "model_not_found"),
        (ContextLengthError("long"), 400, "invalid_request_error", "context_length_exceeded"),
        (QueueFullError("full"), 429, "rate_limit_error", "queue_full"),
        (RequestError("bad", "top_k"), 400, "invalid_request_error", None),
        (StageLostError("lost"), 503, "overloaded_error", "stage_lost"),
        (StarvedError("10 GB more"), 503, "overloaded_error", "starved"),
        (QueueTimeError("full"), 503, "overloaded_error", "queue_timeout"),
        (OutOfTimeError("long"), 504, "timeout_error", "request_timeout"),
        (SlowReaderError("slow"), 408, "invalid_request_error", "slow_reader"),
        (ClusterClosedError("over"), 503, "overloaded_error", "shutting_down"),
        (StageError("broken"), 500, "api_error", None),
    ],
)
def test_every_error_has_its_words(
    error: TbclusterError, status: int, anthropic: str, code: str | None
) -> None:
    refusal = refusal_of(error)
    assert refusal.status_code == status
    headers = refusal.headers or {}
    assert ("Retry-After" in headers) == (status in (429, 503))
    assert headers.get("x-should-retry") == ("false" if status == 504 else None)
    assert error_event(Dialect.OPENAI, error)["error"]["code"] == code
    body = error_event(Dialect.ANTHROPIC, error, "id-1")
    assert body["type"] == "error"
    assert body["error"]["type"] == anthropic
    assert body["request_id"] == "id-1"
    assert set(error_event(Dialect.OLLAMA, error)) == {"error"}


def test_the_field_is_named_where_the_shape_has_no_place_for_it() -> None:
    error = RequestError("must be positive", "top_k")
    assert error_event(Dialect.OPENAI, error)["error"]["param"] == "top_k"
    assert error_event(Dialect.OLLAMA, error) == {"error": "top_k: must be positive"}
    assert error_event(Dialect.ANTHROPIC, error)["error"]["message"] == "top_k: must be positive"
    named = RequestError("top_k must be positive", "top_k")
    assert error_event(Dialect.OLLAMA, named) == {"error": "top_k must be positive"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (405, "invalid_request_error"),
        (408, "invalid_request_error"),
        (413, "request_too_large"),
        (500, "api_error"),
    ],
)
def test_anthropic_names_follow_the_status(status: int, kind: str) -> None:
    body = body_of(Refusal(status, "no"), Dialect.ANTHROPIC)
    assert body["error"] == {"type": kind, "message": "no"}


def test_what_a_client_sent_is_not_sent_back_at_length() -> None:
    refusal = refusal_of(UnknownModelError("x" * 10**6, "served"))
    assert len(refusal.detail) <= MAX_MESSAGE + 1
    assert len(refusal_of(RequestError("no", "p" * 10**6)).param or "") < 200


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("/srv/lib/acme/mid holds no config.json", "mid holds no config.json"),
        ("'/srv/lib/mid/config.json' names no type", "'mid/config.json' names no type"),
        ("see https://hub.example/acme/mid", "see https://hub.example/acme/mid"),
        ("POST /v1/models/load", "POST /v1/models/load"),
        ("3/4 of acme/mid", "3/4 of acme/mid"),
    ],
)
def test_clients_are_not_told_where_models_lie(said: str, told: str) -> None:
    assert refusal_of(ModelError(said)).detail == told
    assert refusal_of(RequestError(said, "model")).detail == said


def test_an_answer_says_what_was_refused_to_whoever_counts() -> None:
    scope: dict[str, Any] = {"path": "/api/chat", "state": {"request_id": "x"}}
    assert (
        answer(scope, Refusal(429, "no", code="queue_full", retry_after_s=0.2)).headers[
            "retry-after"
        ]
        == "1"
    )
    assert scope["state"]["refused"] == "queue_full"
    answer(scope, Refusal(404, "no"))
    assert scope["state"]["refused"] == "404"


def test_the_shapes_are_documented() -> None:
    app = FastAPI(responses=responses(Dialect.ANTHROPIC))
    app.get("/x")(lambda: None)
    documented = app.openapi()["paths"]["/x"]["get"]["responses"]
    assert set(documented) == {"200", "4XX", "5XX"}
    assert "AnthropicError" in str(documented["4XX"])
