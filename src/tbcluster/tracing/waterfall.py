"""A trace laid out for a terminal: which steps are shown, where their parts begin and end. Pure.

Long answers have thousands of steps that look alike: the first ones and the slowest are shown, the
others are summed up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles

from tbcluster.tracing.trace import Kind, RequestTrace, SequenceTrace, StepTrace

MS = 1000
# Of one sequence.
NUM_PROMPTS, NUM_FIRST, NUM_SLOWEST = 12, 12, 5
PERCENTILES = 100


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a step, from `start_us` to `end_us` after the step was sent.

    Attributes:
        kind: "compute", "wire" or "queue".
        stage: Position in the trace's stages; None for the way back.
    """

    kind: str
    stage: int | None
    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Row:
    """A step that is shown."""

    step: StepTrace
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """Of steps of one kind, in milliseconds."""

    kind: Kind
    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    slowest_ms: float


@dataclass(frozen=True, slots=True)
class StageShare:
    """What a stage took of a step, in means of ms; `share` of all its sequence's steps' time."""

    stage: int
    compute_ms: float
    wire_ms: float
    queue_ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Waterfall:
    """One sequence's.

    Attributes:
        rows: Steps to show, in order of time.
        num_hidden: How many others there are.
        summaries: Of all prompt steps, and of all decode steps.
        stages: Of its decode steps, or of the prompt's where there are none.
        longest_us: Of the steps shown: the width of the drawing.
    """

    rows: tuple[Row, ...]
    num_hidden: int
    summaries: tuple[Summary, ...]
    stages: tuple[StageShare, ...]
    longest_us: int


def waterfall(sequence: SequenceTrace, num_first: int = NUM_FIRST) -> Waterfall:
    """Lay a sequence's steps out."""
    shown = _chosen(sequence.steps, num_first)
    rows = tuple(Row(step, pieces(step)) for step in shown)
    decodes = [step for step in sequence.steps if step.kind == "decode"]
    prompts = [step for step in sequence.steps if step.kind == "prompt"]
    summaries = tuple(_summary(steps) for steps in (prompts, decodes) if steps)
    return Waterfall(
        rows,
        len(sequence.steps) - len(rows),
        summaries,
        shares(decodes or prompts),
        max((away_us(step) for step in shown), default=0),
    )


def away_us(step: StepTrace) -> int:
    """From when it was sent until it was back."""
    return step.back_us - step.sent_us


def pieces(step: StepTrace) -> tuple[Piece, ...]:
    """Its parts, one after another, that fill the time that it was away."""
    found: list[Piece] = []
    at = 0

    def add(kind: str, stage: int | None, duration_us: int) -> None:
        nonlocal at
        if duration_us > 0:
            found.append(Piece(kind, stage, at, at + duration_us))
            at += duration_us

    for visit in step.visits:
        add("wire", visit.stage, visit.wire_us)
        add("queue", visit.stage, visit.queue_us)
        add("compute", visit.stage, visit.compute_us)
    # What its parts were rounded by goes to the last one.
    add("wire", None, max(0, away_us(step) - at))
    return tuple(found)


def shares(steps: Sequence[StepTrace]) -> tuple[StageShare, ...]:
    """What each stage took of these steps."""
    total_us = sum(away_us(step) for step in steps)
    times: dict[int, list[int]] = {}
    for step in steps:
        for visit in step.visits:
            sums = times.setdefault(visit.stage, [0, 0, 0])
            for index, value in enumerate((visit.compute_us, visit.wire_us, visit.queue_us)):
                sums[index] += value
    found = []
    for stage, sums in sorted(times.items()):
        compute_ms, wire_ms, queue_ms = (value / len(steps) / MS for value in sums)
        share = sum(sums) / max(1, total_us)
        found.append(StageShare(stage, compute_ms, wire_ms, queue_ms, share))
    return tuple(found)


def where_time_went(trace: RequestTrace, sequence: SequenceTrace) -> str:
    """A sentence that says it; "" where there are no steps."""
    total_us = sum(away_us(step) for step in sequence.steps)
    if not total_us:
        return ""
    parts = (
        ("computing", sum(step.compute_us for step in sequence.steps)),
        ("on the way", sum(step.wire_us for step in sequence.steps)),
        ("behind other steps", sum(step.queue_us for step in sequence.steps)),
    )
    said = ", ".join(f"{value / total_us:.0%} {name}" for name, value in parts)
    found = shares(sequence.steps)
    if len(found) < 2:
        return f"Steps spent {said}."
    slowest = max(found, key=lambda one: one.compute_ms)
    stage = trace.stages[slowest.stage]
    name = f"Stage {stage.index} on {stage.node or 'a node that is gone'}"
    return f"Steps spent {said}. {name} computes longest: {slowest.compute_ms:.1f} ms a step."


def _chosen(steps: Sequence[StepTrace], num_first: int) -> list[StepTrace]:
    prompts = [step for step in steps if step.kind == "prompt"]
    decodes = [step for step in steps if step.kind == "decode"]
    slowest = sorted(steps, key=away_us, reverse=True)[:NUM_SLOWEST]
    failed = [step for step in steps if step.error]
    chosen = (*prompts[:NUM_PROMPTS], *decodes[:num_first], *slowest, *failed[:NUM_SLOWEST])
    wanted = {id(step) for step in chosen}
    return [step for step in steps if id(step) in wanted]


def _summary(steps: Sequence[StepTrace]) -> Summary:
    times = sorted(away_us(step) / MS for step in steps)
    # The cut points below and above are those of one value alone, too.
    cuts = quantiles(times, n=PERCENTILES, method="inclusive") if len(times) > 1 else times * 99
    return Summary(steps[0].kind, len(times), fmean(times), cuts[49], cuts[89], cuts[98], times[-1])
