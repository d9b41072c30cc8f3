"""What the engine notes of steps and sequences, as it is read back. Times are seconds on the
engine's clock."""

from typing import NamedTuple

from tbcluster.core import VisitTiming


class StepRecord(NamedTuple):
    """A step that came back.

    Attributes:
        epoch: A stage may be on another machine in each.
        num_stages: That it went through, perhaps more than once.
        num_tokens: Of a prompt's chunk; of a decode step, its rows.
        request_ids: Of its rows; "" for those that had left.
    """

    step_id: int
    epoch: int
    num_stages: int
    sent_at: float
    back_at: float
    is_prompt: bool
    num_tokens: int
    request_ids: tuple[str, ...]
    timings: tuple[VisitTiming, ...]
    error: str | None


class SequenceRecord(NamedTuple):
    """How far a sequence has come, or how it ended.

    Attributes:
        started_at: Each time that it was given a cache.
        outcome: See `tracing.trace.SequenceTrace`.
        num_steps: That it took part in, those that are forgotten included.
    """

    request_id: str
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    num_steps: int
    outcome: str
    submitted_at: float
    started_at: tuple[float, ...]
    first_token_at: float | None
    ended_at: float | None


class EngineTrace(NamedTuple):
    """What one engine knows of a sequence.

    Attributes:
        steps: Its own that are still known, oldest first.
        others: All that are known of the same seconds, its own among them: they tell how the
            stages' clocks stand.
    """

    sequence: SequenceRecord
    steps: tuple[StepRecord, ...]
    others: tuple[StepRecord, ...]


class ReplicaTrace(NamedTuple):
    """What the engine of one of a model's replicas knows of a sequence."""

    replica: int
    trace: EngineTrace
