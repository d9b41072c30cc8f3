"""The guards around plain ASGI applications."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tbcluster.server.draining import Drain
from tbcluster.server.guards import BodyGuard, DrainGuard, RequestGate
from tbcluster.server.metrics import Metrics
from tbcluster.server.problems import Refusal


def scope_of(path: str = "/v1/completions", **headers: str) -> Scope:
    raw = [(name.encode().replace(b"_", b"-"), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": "POST", "path": path, "headers": raw, "state": {}}


def run(app: ASGIApp, scope: Scope, *messages: Message) -> list[Message]:
    """What the application sends when these messages come, and nothing after them."""
    coming = list(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        if not coming:
            await asyncio.Event().wait()
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent


def part(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def gate(app: ASGIApp) -> tuple[RequestGate, Metrics]:
    metrics = Metrics(dict)
    return RequestGate(app, metrics, logs_access=False), metrics


def error_of(sent: list[Message]) -> tuple[int, Any]:
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body and sends it back."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_a_bug_is_logged_and_answered_in_the_dialect(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret words")

    guarded, _ = gate(broken)
    sent = run(guarded, scope_of("/v1/messages", x_request_id="id-1"))
    status, error = error_of(sent)
    assert status == 500
    assert error["type"] == "api_error"
    assert "secret" not in error["message"]
    assert (b"x-request-id", b"id-1") in sent[0]["headers"]
    assert "ZeroDivisionError" in caplog.text


def test_a_bug_in_the_middle_of_an_answer_ends_the_connection() -> None:
    async def broken(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    guarded, _ = gate(broken)
    with pytest.raises(ZeroDivisionError):
        run(guarded, scope_of())


def test_a_body_of_two_lengths_is_refused_and_the_connection_closed() -> None:
    guarded, _ = gate(echo)
    sent = run(guarded, scope_of(content_length="5", transfer_encoding="chunked"))
    status, error = error_of(sent)
    assert (status, error["code"]) == (400, "invalid_http")
    assert (b"connection", b"close") in sent[0]["headers"]


def test_the_arrival_is_noted_on_the_clock_of_the_metrics() -> None:
    scope = scope_of()
    metrics = Metrics(dict, clock=lambda: 10.0)
    run(RequestGate(echo, metrics, logs_access=False), scope, part(b"", more=False))
    assert scope["state"]["arrived_at"] == 10.0


def test_a_body_in_parts_comes_through() -> None:
    app = BodyGuard(echo, max_bytes=6, silence_s=1)
    sent = run(app, scope_of(), part(b"abc", more=True), part(b"def", more=False))
    assert sent[1]["body"] == b"abcdef"


def test_a_long_body_is_refused_by_what_it_says_or_by_what_comes() -> None:
    app = BodyGuard(echo, max_bytes=6, silence_s=1)
    status, error = error_of(run(app, scope_of(content_length="7")))
    assert (status, error["code"]) == (413, "body_too_large")
    with pytest.raises(Refusal) as refused:
        run(app, scope_of(), part(b"abc", more=True), part(b"defg", more=False))
    assert refused.value.status_code == 413


def test_a_body_that_stays_away_is_not_waited_for() -> None:
    app = BodyGuard(echo, max_bytes=6, silence_s=0.01)
    with pytest.raises(Refusal) as refused:
        run(app, scope_of(), part(b"abc", more=True))
    assert refused.value.status_code == 408


def test_a_body_that_drips_is_not_waited_for() -> None:
    async def drip() -> Message:
        await asyncio.sleep(0.005)
        return part(b"a", more=True)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    app = BodyGuard(echo, max_bytes=10**6, silence_s=0.1)
    with pytest.raises(Refusal) as refused:
        asyncio.run(app(scope_of(), drip, send))
    assert refused.value.status_code == 408


def test_a_client_that_has_said_everything_may_be_silent() -> None:
    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        gone = asyncio.ensure_future(receive())
        await asyncio.wait({gone}, timeout=0.05)
        assert not gone.done()
        gone.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    app = BodyGuard(patient, max_bytes=6, silence_s=0.01)
    assert run(app, scope_of(), part(b"abc", more=False))[0]["status"] == 200


@pytest.mark.parametrize(
    ("path", "is_draining", "status"),
    [
        ("/v1/completions", False, 200),
        ("/v1/completions", True, 503),
        ("/health", True, 200),
        ("/ready", True, 200),
        ("/metrics", True, 200),
    ],
)
def test_while_draining_only_probes_are_answered(path: str, is_draining: bool, status: int) -> None:
    app = DrainGuard(echo, Drain(is_draining))
    assert run(app, scope_of(path), part(b"", more=False))[0]["status"] == status
