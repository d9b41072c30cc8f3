"""A trace as OpenTelemetry's OTLP in JSON, for any collector. Pure.

https://opentelemetry.io/docs/specs/otlp/ and, for the names of attributes,
https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from tbcluster.tracing.trace import RequestTrace, SequenceTrace, StepTrace

SERVICE = "tbcluster"
# Of OTLP's enumerations.
KIND_INTERNAL, KIND_SERVER = 1, 2
STATUS_ERROR = 2
NS_PER_US = 1000
US_PER_S = 1e6
TRACE_HEX, SPAN_HEX = 32, 16
Json = dict[str, Any]
Facts = Mapping[str, str | int]


def otlp_body(trace: RequestTrace, *, with_steps: bool = True) -> Json:
    """The body of a POST to `/v1/traces`.

    Args:
        with_steps: Every step and its stages, too: thousands of spans for a long answer.
    """
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes({"service.name": SERVICE})},
                "scopeSpans": [
                    {
                        "scope": {"name": SERVICE},
                        "spans": list(_Spans(trace).of_request(with_steps=with_steps)),
                    }
                ],
            }
        ]
    }


class _Spans:
    """Of one request; ids follow from its own, so that sending it twice changes nothing."""

    def __init__(self, trace: RequestTrace) -> None:
        self._trace = trace
        self._request = trace.request
        self._zero_ns = round(trace.request.at * US_PER_S) * NS_PER_US
        self._own_id = f"{self._request.answer_id}/{self._request.request_id}"

    def of_request(self, *, with_steps: bool) -> Iterator[Json]:
        request = self._request
        facts: Facts = {
            "gen_ai.operation.name": _operation(request.endpoint),
            "gen_ai.provider.name": SERVICE,
            "gen_ai.request.model": request.model,
            "gen_ai.response.id": request.answer_id,
            "gen_ai.usage.input_tokens": request.num_prompt_tokens,
            "gen_ai.usage.output_tokens": request.num_generated_tokens,
            "tbcluster.cached_tokens": request.num_cached_tokens,
            "http.route": request.endpoint,
            "http.request.header.x-request-id": request.request_id,
        }
        end_us = self._end_us()
        span = self._span("request", None, request.endpoint, 0, end_us, facts)
        failed = request.outcome in ("error", "cancelled")
        status = {"status": {"code": STATUS_ERROR, "message": request.outcome}} if failed else {}
        yield {**span, "kind": KIND_SERVER, **status}
        for sequence in self._trace.sequences:
            yield from self._of_sequence(sequence, end_us, with_steps=with_steps)

    def _end_us(self) -> int:
        ends = [step.back_us for one in self._trace.sequences for step in one.steps]
        return max(ends, default=0) if self._request.ended_us is None else self._request.ended_us

    def _of_sequence(
        self, sequence: SequenceTrace, end_us: int, *, with_steps: bool
    ) -> Iterator[Json]:
        name = f"choice {sequence.index}"
        end_us = end_us if sequence.ended_us is None else sequence.ended_us
        began_us = sequence.started_us[0] if sequence.started_us else end_us
        first_us = end_us if sequence.first_token_us is None else sequence.first_token_us
        facts: Facts = {
            "tbcluster.outcome": sequence.outcome,
            "tbcluster.starts": len(sequence.started_us),
        }
        yield self._span(name, "request", name, sequence.submitted_us, end_us, facts)
        yield self._span(f"{name}/queue", name, "queue", sequence.submitted_us, began_us)
        yield self._span(f"{name}/prefill", name, "prefill", began_us, first_us)
        if sequence.first_token_us is not None:
            yield self._span(f"{name}/decode", name, "decode", first_us, end_us)
        if with_steps:
            # Engines of several replicas number their steps alike.
            for number, step in enumerate(sequence.steps):
                phase = "prefill" if step.sent_us < first_us else "decode"
                yield from self._of_step(f"{name}/{phase}", f"{name}/step {number}", step)

    def _of_step(self, parent: str, name: str, step: StepTrace) -> Iterator[Json]:
        facts = {"tbcluster.step": step.step_id, "tbcluster.tokens": step.num_tokens}
        yield self._span(name, parent, f"{step.kind} step", step.sent_us, step.back_us, facts)
        for number, visit in enumerate(step.visits):
            stage = self._trace.stages[visit.stage]
            facts_here: Facts = {
                "tbcluster.node": stage.node,
                "tbcluster.wire_us": visit.wire_us,
                "tbcluster.queue_us": visit.queue_us,
            }
            end_us = visit.begun_us + visit.compute_us
            title = f"stage {stage.index}"
            yield self._span(f"{name}/{number}", name, title, visit.begun_us, end_us, facts_here)

    def _span(
        self,
        name: str,
        parent: str | None,
        title: str,
        start_us: int,
        end_us: int,
        facts: Facts | None = None,
    ) -> Json:
        return {
            "traceId": _hex(self._own_id, TRACE_HEX),
            "spanId": self._span_id(name),
            **({} if parent is None else {"parentSpanId": self._span_id(parent)}),
            "name": title,
            "kind": KIND_INTERNAL,
            "startTimeUnixNano": str(self._zero_ns + start_us * NS_PER_US),
            "endTimeUnixNano": str(self._zero_ns + max(start_us, end_us) * NS_PER_US),
            "attributes": _attributes(facts or {}),
        }

    def _span_id(self, name: str) -> str:
        return _hex(f"{self._own_id}/{name}", SPAN_HEX)


def _operation(endpoint: str) -> str:
    is_plain = endpoint.endswith("/completions") and not endpoint.endswith("/chat/completions")
    return "text_completion" if is_plain else "chat"


def _hex(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _attributes(facts: Facts) -> list[Json]:
    """64-bit integers are strings in OTLP's JSON."""
    return [
        {
            "key": key,
            "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
        }
        for key, value in facts.items()
    ]
