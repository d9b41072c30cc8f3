"""From what engines noted to a request's trace. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tbcluster.tracing.clocks import US_PER_S, Clocks, parts
from tbcluster.tracing.records import ReplicaTrace, StepRecord
from tbcluster.tracing.trace import (
    RequestSummary,
    RequestTrace,
    SequenceTrace,
    StepTrace,
    TracedStage,
    Visit,
)

MOVED = "moved"
RUNNING = "running"
# Of several choices, the first of these that one has tells how the answer stands.
BY_WEIGHT = (RUNNING, "error", "cancelled", "length", "stop")


@dataclass(frozen=True, slots=True)
class Head:
    """A request as the server knows it.

    Attributes:
        at: When it came, Unix seconds; `arrived_at` is the same on the engines' clock.
    """

    request_id: str
    answer_id: str
    endpoint: str
    model: str
    at: float
    arrived_at: float


# What the replicas know of one choice; of a request all of its choices.
Choice = Sequence[ReplicaTrace]


def summary(head: Head, choices: Sequence[Choice]) -> RequestSummary:
    """A request in one line; several prompts or choices count together, a prompt of several choices
    each time."""
    return _summary(head, [_sequence(head, index, one) for index, one in enumerate(choices)])


def request_trace(
    head: Head, choices: Sequence[Choice], stages: Sequence[TracedStage]
) -> RequestTrace:
    """All that is known.

    Args:
        stages: That the model has now, replica by replica. Steps from before a change of plan are
            told by the number of their stage; where it has fewer now, the others have no node.
    """
    places = _Places(stages)
    sequences = tuple(_sequence(head, index, one, places) for index, one in enumerate(choices))
    return RequestTrace(_summary(head, sequences), places.stages(), sequences)


class _Places:
    """Stages by replica and number, and how far their clocks may be off."""

    def __init__(self, stages: Sequence[TracedStage]) -> None:
        self._stages = list(stages)
        self._positions = {
            (stage.replica, stage.index): position for position, stage in enumerate(stages)
        }
        self._errors_us: dict[int, float] = {}

    def of(self, replica: int, index: int) -> int:
        """A stage's position in the list."""
        key = replica, index
        if key not in self._positions:
            self._positions[key] = len(self._stages)
            self._stages.append(TracedStage(index, replica, "", 0, 0))
        return self._positions[key]

    def note_error(self, position: int, error_us: float) -> None:
        """How far its clock may have been off for a step."""
        self._errors_us[position] = max(error_us, self._errors_us.get(position, 0.0))

    def stages(self) -> tuple[TracedStage, ...]:
        """All of them."""
        return tuple(
            msgspec.structs.replace(stage, clock_error_us=round(self._errors_us.get(position, 0.0)))
            for position, stage in enumerate(self._stages)
        )


def _summary(head: Head, sequences: Sequence[SequenceTrace]) -> RequestSummary:
    outcomes = {sequence.outcome for sequence in sequences}
    firsts = [s.first_token_us for s in sequences if s.first_token_us is not None]
    ends = [sequence.ended_us for sequence in sequences if sequence.ended_us is not None]
    return RequestSummary(
        request_id=head.request_id,
        answer_id=head.answer_id,
        endpoint=head.endpoint,
        model=head.model,
        at=head.at,
        outcome=next((one for one in BY_WEIGHT if one in outcomes), RUNNING),
        num_prompt_tokens=sum(sequence.num_prompt_tokens for sequence in sequences),
        num_cached_tokens=sum(sequence.num_cached_tokens for sequence in sequences),
        num_generated_tokens=sum(sequence.num_generated_tokens for sequence in sequences),
        first_token_us=min(firsts, default=None),
        ended_us=max(ends) if ends and len(ends) == len(sequences) else None,
    )


def _sequence(
    head: Head, index: int, choice: Choice, places: _Places | None = None
) -> SequenceTrace:
    """One choice, put together from where it has been: it may have moved from one replica to
    another."""
    by_time = sorted(choice, key=lambda known: known.trace.sequence.submitted_at)
    records = [known.trace.sequence for known in by_time]
    newest = records[-1]
    steps = [] if places is None else [s for known in by_time for s in _steps(head, known, places)]
    first = next((r.first_token_at for r in records if r.first_token_at is not None), None)
    has_moved_away = newest.outcome == MOVED
    return SequenceTrace(
        index=index,
        num_prompt_tokens=newest.num_prompt_tokens,
        num_cached_tokens=newest.num_cached_tokens,
        num_generated_tokens=newest.num_generated_tokens,
        outcome=RUNNING if has_moved_away else newest.outcome,
        submitted_us=_since(head, records[0].submitted_at),
        started_us=tuple(_since(head, at) for record in records for at in record.started_at),
        first_token_us=None if first is None else _since(head, first),
        ended_us=None
        if has_moved_away or newest.ended_at is None
        else _since(head, newest.ended_at),
        steps=tuple(sorted(steps, key=lambda step: step.sent_us)),
        # What a sequence counts goes with it.
        num_lost_steps=max(0, newest.num_steps - len(steps)) if places is not None else 0,
    )


def _steps(head: Head, known: ReplicaTrace, places: _Places) -> list[StepTrace]:
    clocks = Clocks(known.trace.others)
    return [_step(head, record, known.replica, clocks, places) for record in known.trace.steps]


def _step(
    head: Head, record: StepRecord, replica: int, clocks: Clocks, places: _Places
) -> StepTrace:
    offsets = clocks.of(record)
    found, return_s = parts(record, offsets)
    visits = []
    for part in found:
        position = places.of(replica, part.stage)
        places.note_error(position, offsets[part.stage].error_us)
        visits.append(
            Visit(
                stage=position,
                wire_us=_us(part.wire_s),
                queue_us=_us(part.queue_s),
                begun_us=_since(head, part.begun_at),
                compute_us=_us(part.compute_s),
            )
        )
    return StepTrace(
        step_id=record.step_id,
        kind="prompt" if record.is_prompt else "decode",
        sent_us=_since(head, record.sent_at),
        back_us=_since(head, record.back_at),
        num_tokens=record.num_tokens,
        visits=tuple(visits),
        return_us=_us(return_s),
        error=record.error,
    )


def _since(head: Head, at: float) -> int:
    return _us(at - head.arrived_at)


def _us(seconds: float) -> int:
    return round(seconds * US_PER_S)
