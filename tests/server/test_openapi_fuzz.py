"""What schemathesis makes of /openapi.json: no answer is the server's own fault, and each has a
status, a type and a shape that the page describes."""

from contextlib import suppress
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.doubles.server import ServeProcess

MODEL = "tbcluster-demo"
MAX_EXAMPLES = 8
TIMEOUT_S = 60
MODES = tuple(schemathesis.GenerationMode)
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# What bounds an answer, by the dialects' names.
BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")
MAX_TOKENS = 3
NEEDED = {"model", "messages", "prompt", "input", "tokens", *BOUNDS}

SETTINGS = settings(
    max_examples=MAX_EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def made_cheap(body: dict[str, Any]) -> dict[str, Any]:
    """The same, but it asks for few tokens if for any."""
    if isinstance(body.get("options"), dict):
        body = {**body, "options": made_cheap(body["options"])}
    long = {name for name in BOUNDS if isinstance(body.get(name), int) and body[name] > MAX_TOKENS}
    return {**body, **dict.fromkeys(long, MAX_TOKENS)}


def made_likely(body: dict[str, Any], num_others: int) -> dict[str, Any]:
    """The same, for the model that is served, with few fields besides those that are needed."""
    others = [name for name in body if name not in NEEDED][num_others:]
    kept = {name: value for name, value in body.items() if name not in others}
    return {**kept, "model": MODEL} if "model" in kept else kept


def test_every_operation_answers_as_described(server: ServeProcess) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    paths = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path == "/models/unload":
            continue  # others use the model
        if operation.path == "/live":
            continue  # it does not end by itself
        paths.add(operation.path)
        for mode in MODES:
            try_out(operation, mode)
    assert {"/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"} <= paths
    assert "Traceback" not in server.output


def test_streams_and_errors_are_described_by_dialect(server: ServeProcess) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    for path, stream, error in (
        ("/v1/chat/completions", "text/event-stream", "OpenAIError"),
        ("/v1/messages", "text/event-stream", "AnthropicError"),
        ("/api/chat", "application/x-ndjson", "OllamaError"),
    ):
        answers = paths[path]["post"]["responses"]
        assert {"application/json", stream} == set(answers["200"]["content"])
        shape = answers["4XX"]["content"]["application/json"]["schema"]["$ref"]
        assert shape.rpartition("/")[2] == error


def try_out(operation: Any, mode: schemathesis.GenerationMode) -> None:
    """Make requests of one operation, right or wrong ones, and check their answers."""

    @SETTINGS
    @given(case=operation.as_strategy(mode), num_others=st.none() | st.integers(0, 3))
    def run(case: schemathesis.Case, num_others: int | None) -> None:
        if isinstance(case.body, dict):
            case.body = made_cheap(case.body)
            if num_others is not None:
                case.body = made_likely(case.body, num_others)
        case.validate_response(case.call(timeout=TIMEOUT_S), checks=CHECKS)

    # An operation that takes nothing cannot be asked wrongly.
    with suppress(Unsatisfiable):
        run()
