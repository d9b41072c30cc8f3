"""OTLP's JSON."""

import re
from typing import Any

import msgspec
import pytest

from tbcluster.tracing.otlp import otlp_body
from tests.tracing.traces import a_trace, numbered_alike


def spans_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    (resource,) = body["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    spans: list[dict[str, Any]] = scope["spans"]
    return spans


def test_spans_are_a_tree_within_their_parents_times() -> None:
    spans = spans_of(otlp_body(a_trace(num_sequences=2)))
    by_id = {span["spanId"]: span for span in spans}
    assert len(by_id) == len(spans)
    roots = [span for span in spans if "parentSpanId" not in span]
    assert [root["name"] for root in roots] == ["/v1/chat/completions"]
    for span in spans:
        assert re.fullmatch("[0-9a-f]{32}", span["traceId"])
        assert re.fullmatch("[0-9a-f]{16}", span["spanId"])
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
        if "parentSpanId" in span:
            parent = by_id[span["parentSpanId"]]
            assert int(parent["startTimeUnixNano"]) <= int(span["startTimeUnixNano"])
    assert roots[0]["startTimeUnixNano"] == "1700000000250000000"


def test_the_request_says_what_genai_conventions_ask_for() -> None:
    root, *_ = spans_of(otlp_body(a_trace()))
    facts = {one["key"]: one["value"] for one in root["attributes"]}
    assert facts["gen_ai.request.model"] == {"stringValue": "demo"}
    assert facts["gen_ai.usage.input_tokens"] == {"intValue": "129"}
    assert facts["gen_ai.usage.output_tokens"] == {"intValue": "30"}
    assert "status" not in root


def test_steps_can_be_left_out() -> None:
    with_steps = spans_of(otlp_body(a_trace()))
    without = spans_of(otlp_body(a_trace(), with_steps=False))
    assert len(without) == 5
    assert len(with_steps) == 5 + 32 * 4


def test_steps_of_two_replicas_that_number_them_alike_stay_apart() -> None:
    spans = spans_of(otlp_body(numbered_alike(a_trace())))
    assert len({span["spanId"] for span in spans}) == len(spans)


@pytest.mark.parametrize(
    ("endpoint", "operation"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/messages", "chat"),
        ("/v1/responses", "chat"),
        ("/v1/completions", "text_completion"),
    ],
)
def test_what_an_endpoint_is_called_there(endpoint: str, operation: str) -> None:
    trace = a_trace()
    asked = msgspec.structs.replace(trace.request, endpoint=endpoint)
    root, *_ = spans_of(otlp_body(msgspec.structs.replace(trace, request=asked)))
    facts = {one["key"]: one["value"] for one in root["attributes"]}
    assert facts["gen_ai.operation.name"] == {"stringValue": operation}


def test_a_failure_is_one() -> None:
    root, *_ = spans_of(otlp_body(a_trace(outcome="error")))
    assert root["status"]["code"] == 2


def test_sending_it_twice_changes_nothing() -> None:
    assert otlp_body(a_trace()) == otlp_body(a_trace())
