"""What engines did between two looks. Pure."""

from dataclasses import dataclass

from tbcluster.engine.statistics import EngineStatistics

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

    def a_step(earlier_us: int, later_us: int) -> float | None:
        return max(0, later_us - earlier_us) / num_steps / US_PER_MS if num_steps else None

    return Rates(
        tokens_per_s=max(0, now.num_generated_tokens - before.num_generated_tokens) / seconds,
        prompt_tokens_per_s=max(0, _computed(now) - _computed(before)) / seconds,
        step_ms=a_step(before.round_trip_us, now.round_trip_us),
        wire_ms=a_step(before.wire_us, now.wire_us),
        stages=tuple(
            StageRates(
                a_step(was.compute_us, stage.compute_us),
                a_step(was.wire_us, stage.wire_us),
                a_step(was.idle_us, stage.idle_us),
                min(1.0, max(0, stage.compute_us - was.compute_us) / US_PER_S / seconds),
            )
            for was, stage in zip(before.stages, now.stages, strict=True)
        ),
    )


def _computed(statistics: EngineStatistics) -> int:
    """Prompt tokens that no known prefix spared."""
    return statistics.num_prompt_tokens - statistics.num_cached_tokens
