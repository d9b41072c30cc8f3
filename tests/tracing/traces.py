"""Made-up traces."""

import msgspec
from hypothesis import strategies as st

from tbcluster.tracing.trace import (
    Kind,
    RequestSummary,
    RequestTrace,
    SequenceTrace,
    StepTrace,
    TracedStage,
    Visit,
)

NODES = ("mac-1", "mac-2", "mac-1")


def a_step(
    step_id: int,
    kind: Kind,
    sent_us: int,
    parts: list[tuple[int, int, int]],
    return_us: int = 50,
    error: str | None = None,
) -> StepTrace:
    """A step whose visits took so long on the wire, in the queue and computing."""
    at, visits = sent_us, []
    for stage, (wire_us, queue_us, compute_us) in enumerate(parts):
        at += wire_us + queue_us
        visits.append(Visit(stage, wire_us, queue_us, at, compute_us))
        at += compute_us
    num_tokens = 64 if kind == "prompt" else 1
    back_us = at + return_us
    return StepTrace(step_id, kind, sent_us, back_us, num_tokens, tuple(visits), return_us, error)


def a_trace(num_decodes: int = 30, num_sequences: int = 1, **fields: object) -> RequestTrace:
    """Two prompt chunks, then tokens one by one, through three stages on two machines; the 20th
    token took longest."""
    parts = [(100, 0, 4000), (300, 200, 6000), (100, 0, 2000)]
    steps = [a_step(index, "prompt", 5000 + index * 20_000, parts) for index in range(2)]
    for index in range(num_decodes):
        slow = 40_000 if index == 19 else 0
        times = [(100, 0, 1000), (300, 0, 1500 + slow), (100, 0, 500)]
        steps.append(a_step(2 + index, "decode", 50_000 + index * 50_000, times))
    end_us = steps[-1].back_us
    usual: dict[str, object] = {
        "num_prompt_tokens": 129,
        "num_cached_tokens": 0,
        "num_generated_tokens": num_decodes,
        "outcome": "length",
        "submitted_us": 1000,
        "started_us": (4000,),
        "first_token_us": 54_000,
        "ended_us": end_us,
        "steps": tuple(steps),
    }
    sequences = tuple(
        SequenceTrace(index=index, **{**usual, **fields})  # type: ignore[arg-type]
        for index in range(num_sequences)
    )
    request = RequestSummary(
        "req-1",
        "chatcmpl-1",
        "/v1/chat/completions",
        "demo",
        1_700_000_000.25,
        sequences[0].outcome,
        129,
        0,
        num_decodes,
        54_000,
        sequences[0].ended_us,
    )
    stages = tuple(
        TracedStage(index, 0, node, index * 4, index * 4 + 3, 200 if node == "mac-2" else 0)
        for index, node in enumerate(NODES)
    )
    return RequestTrace(request, stages, sequences)


@st.composite
def step_lists(draw: st.DrawFn) -> tuple[StepTrace, ...]:
    """Steps of any kind, one after another."""
    times = st.integers(0, 5000)
    steps, now = [], 0
    for step_id in range(draw(st.integers(0, 60))):
        parts = draw(st.lists(st.tuples(times, times, times), min_size=1, max_size=3))
        kind: Kind = draw(st.sampled_from(("prompt", "decode")))
        error = draw(st.sampled_from((None, None, None, "it failed")))
        steps.append(a_step(step_id, kind, now, parts, draw(times), error))
        now = steps[-1].back_us + draw(times)
    return tuple(steps)


def numbered_alike(trace: RequestTrace) -> RequestTrace:
    """Steps of several replicas may have one number."""
    sequences = tuple(
        msgspec.structs.replace(
            sequence, steps=tuple(msgspec.structs.replace(s, step_id=7) for s in sequence.steps)
        )
        for sequence in trace.sequences
    )
    return msgspec.structs.replace(trace, sequences=sequences)
