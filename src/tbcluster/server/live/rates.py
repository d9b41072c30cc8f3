"""What engines did between two looks. Pure."""

from dataclasses import dataclass

from tbcluster.engine.statistics import EngineStatistics, StageStatistics

US_PER_S = 1e6
US_PER_MS = 1e3


@dataclass(frozen=True, slots=True)
class StageRates:
    """Of one stage: means of a step in ms, None where there was no step, and its busy share."""

    compute_ms: float | None = None
    wire_ms: float | None = None
    wait_ms: float | None = None
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Of a model between two looks.

    Attributes:
        stages: One for each of `EngineStatistics.stages`.
    """

    tokens_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    step_ms: float | None = None
    wire_ms: float | None = None
    stages: tuple[StageRates, ...] = ()


def rates(before: EngineStatistics | None, now: EngineStatistics, seconds: float) -> Rates:
    """What was done in these seconds. Counters that began again, or of other stages than before,
    tell nothing yet."""
    is_same = (
        before is not None
        and len(before.stages) == len(now.stages)
        and before.num_steps <= now.num_steps
    )
    if before is None or not is_same or seconds <= 0:
        return Rates(stages=(StageRates(),) * len(now.stages))
    num_steps = now.num_steps - before.num_steps

    return Rates(
        tokens_per_s=max(0, now.num_generated_tokens - before.num_generated_tokens) / seconds,
        prompt_tokens_per_s=max(0, now.num_prefill_tokens - before.num_prefill_tokens) / seconds,
        step_ms=_mean_ms(now.round_trip_us - before.round_trip_us, num_steps),
        wire_ms=_mean_ms(now.wire_us - before.wire_us, num_steps),
        stages=tuple(
            _stage_rates(was, stage, seconds)
            for was, stage in zip(before.stages, now.stages, strict=True)
        ),
    )


def _stage_rates(was: StageStatistics, now: StageStatistics, seconds: float) -> StageRates:
    num_steps = now.num_steps - was.num_steps
    computed_us = now.compute_us - was.compute_us
    return StageRates(
        _mean_ms(computed_us, num_steps),
        _mean_ms(now.wire_us - was.wire_us, num_steps),
        _mean_ms(now.idle_us - was.idle_us, num_steps),
        min(1.0, max(0, computed_us) / US_PER_S / seconds),
    )


def _mean_ms(total_us: int, num_steps: int) -> float | None:
    return max(0, total_us) / num_steps / US_PER_MS if num_steps > 0 else None
