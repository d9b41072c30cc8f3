"""What schemathesis makes of /openapi.json: no answer is the server's own fault, and each has a
status, a type and a shape that the page describes."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.doubles.server import ServeProcess

MODEL = "tbcluster-demo"
MAX_EXAMPLES = 15
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

SETTINGS = settings(
    max_examples=MAX_EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server() -> Iterator[ServeProcess]:
    with ServeProcess("--stages", "2") as running:
        yield running


def made_cheap(body: Any, *, is_served: bool) -> Any:
    """A body that asks for few tokens if for any; for half of them, of the model that is served."""
    if not isinstance(body, dict):
        return body
    if is_served and "model" in body:
        body = {**body, "model": MODEL}
    if isinstance(body.get("options"), dict):
        body = {**body, "options": made_cheap(body["options"], is_served=False)}
    for name in BOUNDS:
        if isinstance(body.get(name), int) and body[name] > MAX_TOKENS:
            body = {**body, name: MAX_TOKENS}
    return body


def test_every_operation_answers_as_described(server: ServeProcess) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    paths = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        paths.add(operation.path)
        for mode in MODES:
            try_out(operation, mode)
    assert {"/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"} <= paths
    assert "Traceback" not in server.output


def try_out(operation: Any, mode: schemathesis.GenerationMode) -> None:
    """Make requests of one operation, right or wrong ones, and check their answers."""

    @SETTINGS
    @given(case=operation.as_strategy(mode), is_served=st.booleans())
    def run(case: schemathesis.Case, is_served: bool) -> None:
        case.body = made_cheap(case.body, is_served=is_served)
        case.validate_response(case.call(timeout=TIMEOUT_S), checks=CHECKS)

    run()
