"""A trace as Chrome's trace events, which Perfetto and chrome://tracing open. Pure.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from collections.abc import Iterator
from typing import Any

from tbcluster.tracing.trace import RequestTrace, SequenceTrace, StepTrace, TracedStage

COORDINATOR = 1
CATEGORY = "tbcluster"
Event = dict[str, Any]


def chrome_trace(trace: RequestTrace) -> Event:
    """One process for the coordinator and one for each node; a thread for each sequence there, and
    for each stage here; arrows follow a step."""
    return {
        "traceEvents": list(_events(trace)),
        "displayTimeUnit": "ms",
        "otherData": {
            "request_id": trace.request.request_id,
            "answer_id": trace.request.answer_id,
            "model": trace.request.model,
        },
    }


def _events(trace: RequestTrace) -> Iterator[Event]:
    nodes = {node: COORDINATOR + 1 + index for index, node in enumerate(_nodes(trace))}
    yield _name("process_name", COORDINATOR, 0, "coordinator")
    for node, process in nodes.items():
        yield _name("process_name", process, 0, node or "a node that is gone")
    for position, stage in enumerate(trace.stages):
        yield _name("thread_name", nodes[stage.node], position + 1, _stage_name(stage))
    for sequence in trace.sequences:
        thread = sequence.index + 1
        yield _name("thread_name", COORDINATOR, thread, f"choice {sequence.index}")
        yield from _milestones(sequence, thread)
        # Engines of several replicas number their steps alike.
        for number, step in enumerate(sequence.steps):
            yield from _step(trace, nodes, f"{thread}.{number}", step)


def _nodes(trace: RequestTrace) -> list[str]:
    return list(dict.fromkeys(stage.node for stage in trace.stages))


def _stage_name(stage: TracedStage) -> str:
    replica = f" of replica {stage.replica}" if stage.replica else ""
    return f"stage {stage.index}{replica}: layers {stage.first_layer}-{stage.last_layer}"


def _milestones(sequence: SequenceTrace, thread: int) -> Iterator[Event]:
    """What the whole was waiting for, above its steps."""
    last_us = max((step.back_us for step in sequence.steps), default=sequence.submitted_us)
    end_us = last_us if sequence.ended_us is None else sequence.ended_us
    facts = {
        "outcome": sequence.outcome,
        "prompt tokens": sequence.num_prompt_tokens,
        "of them cached": sequence.num_cached_tokens,
        "generated tokens": sequence.num_generated_tokens,
    }
    yield _span("request", COORDINATOR, thread, sequence.submitted_us, end_us, facts)
    began_us = sequence.started_us[0] if sequence.started_us else end_us
    yield _span("queue", COORDINATOR, thread, sequence.submitted_us, began_us)
    first_us = sequence.first_token_us
    yield _span("prefill", COORDINATOR, thread, began_us, end_us if first_us is None else first_us)
    if first_us is not None:
        yield _span("decode", COORDINATOR, thread, first_us, end_us)
    for again_us in sequence.started_us[1:]:
        yield {
            "ph": "i",
            "s": "t",
            "name": "starts over",
            "cat": CATEGORY,
            "pid": COORDINATOR,
            "tid": thread,
            "ts": again_us,
        }


def _step(
    trace: RequestTrace, nodes: dict[str, int], flow_id: str, step: StepTrace
) -> Iterator[Event]:
    name = f"{step.kind} {step.num_tokens}"
    for number, visit in enumerate(step.visits):
        stage = trace.stages[visit.stage]
        place = (nodes[stage.node], visit.stage + 1)
        facts = {"step": step.step_id, "wire us": visit.wire_us, "queue us": visit.queue_us}
        end_us = visit.begun_us + visit.compute_us
        yield _span(name, *place, visit.begun_us, end_us, facts)
        flow = {"cat": CATEGORY, "name": "step", "id": flow_id}
        if len(step.visits) > 1:
            is_last = number == len(step.visits) - 1
            phase = "s" if number == 0 else "f" if is_last else "t"
            ends = {"bp": "e"} if is_last else {}
            yield {
                "ph": phase,
                "pid": place[0],
                "tid": place[1],
                "ts": visit.begun_us,
                **flow,
                **ends,
            }


def _span(
    name: str,
    process: int,
    thread: int,
    start_us: int,
    end_us: int,
    facts: dict[str, Any] | None = None,
) -> Event:
    return {
        "ph": "X",
        "name": name,
        "cat": CATEGORY,
        "pid": process,
        "tid": thread,
        "ts": start_us,
        "dur": max(0, end_us - start_us),
        "args": facts or {},
    }


def _name(what: str, process: int, thread: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}
