"""What the engine counts about itself, since the last reset. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tbcluster.core import MicroBatch, StepResult


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """How one stage spent its time while steps were on their way, in microseconds.

    Attributes:
        wire_us: How long steps took to get there, from the stage before or the coordinator.
        num_steps: That went through its pipeline.
    """

    compute_us: int
    idle_us: int
    wire_us: int = 0
    num_steps: int = 0

    @property
    def idle_share(self) -> float:
        """Share of the time that the stage had nothing to do, 0..1."""
        total = self.compute_us + self.idle_us
        return self.idle_us / total if total else 0.0


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """A snapshot.

    Attributes:
        own_us: The coordinator's own time: the engine's turns less its waiting for results.
        round_trip_us: Of all steps together, from when each was sent until its result was there.
        wire_us: How much of that no stage computed the step: it was on a wire or in a queue.
        num_cached_tokens: Prompt tokens that known prefixes spared.
        num_prefill_tokens: Tokens of prompts' chunks that came back, those that are computed a
            second time included.
        num_prefixes: Prefixes that are kept now.
        kv_used_bytes: Per stage, what the KV caches hold now, prefixes included.
        num_running, num_waiting: Sequences that take part in steps now, and those in the queue.
    """

    stages: tuple[StageStatistics, ...]
    num_steps: int
    own_us: int
    round_trip_us: int
    wire_us: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    num_preemptions: int
    num_prefixes: int
    kv_used_bytes: tuple[int, ...]
    kv_budget_bytes: tuple[int, ...]
    num_running: int = 0
    num_waiting: int = 0
    num_prefill_tokens: int = 0

    @property
    def idle_share(self) -> float:
        """Idle share of the busiest stage, 0..1."""
        return min((stage.idle_share for stage in self.stages), default=0.0)


def merged(parts: Sequence[EngineStatistics]) -> EngineStatistics:
    """What several engines counted, one after another where it is per stage, else together."""

    def total(name: str) -> int:
        return sum(getattr(part, name) for part in parts)

    return EngineStatistics(
        stages=tuple(stage for part in parts for stage in part.stages),
        num_steps=total("num_steps"),
        own_us=total("own_us"),
        round_trip_us=total("round_trip_us"),
        wire_us=total("wire_us"),
        num_prompt_tokens=total("num_prompt_tokens"),
        num_cached_tokens=total("num_cached_tokens"),
        num_generated_tokens=total("num_generated_tokens"),
        num_preemptions=total("num_preemptions"),
        num_prefixes=total("num_prefixes"),
        kv_used_bytes=tuple(size for part in parts for size in part.kv_used_bytes),
        kv_budget_bytes=tuple(size for part in parts for size in part.kv_budget_bytes),
        num_running=total("num_running"),
        num_waiting=total("num_waiting"),
        num_prefill_tokens=total("num_prefill_tokens"),
    )


@dataclass(slots=True)
class Counters:
    """What the engine adds up as it goes; `num_stages` long where it is per stage."""

    num_stages: int
    compute_us: list[int] = field(default_factory=list)
    idle_us: list[int] = field(default_factory=list)
    num_steps: int = 0
    own_s: float = 0.0
    round_trip_us: int = 0
    wire_us: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    num_preemptions: int = 0
    num_prefill_tokens: int = 0

    def __post_init__(self) -> None:
        self.compute_us = [0] * self.num_stages
        self.idle_us = [0] * self.num_stages

    def over(self, num_stages: int) -> "Counters":
        """These counts, to go on with other stages: what a stage of the same number has counted
        stays, so that nothing falls."""
        others = replace(self, num_stages=num_stages)
        for stage in range(min(num_stages, self.num_stages)):
            others.compute_us[stage] = self.compute_us[stage]
            others.idle_us[stage] = self.idle_us[stage]
        return others

    def count_step(self, result: StepResult) -> int:
        """Add a step that came back. Returns what all stages together computed, in microseconds."""
        self.num_steps += 1
        if result.error is None:
            self.num_prefill_tokens += _num_prompt_tokens(result.micro_batch)
        self.round_trip_us += result.round_trip_us
        computed_us = sum(timing.compute_us for timing in result.timings)
        # Clocks of two machines: a step may seem to be computed for longer than it was away.
        self.wire_us += max(0, result.round_trip_us - computed_us)
        for visit, timing in enumerate(result.timings):
            stage = visit % self.num_stages
            self.compute_us[stage] += timing.compute_us
            # Waiting from before the step was submitted may have been for want of any work.
            self.idle_us[stage] += min(timing.wait_us, result.round_trip_us)
        return computed_us

    def snapshot(
        self,
        num_prefixes: int,
        kv_used_bytes: tuple[int, ...],
        kv_budget_bytes: tuple[int, ...],
        num_running: int = 0,
        num_waiting: int = 0,
        way_us: Sequence[int] = (),
    ) -> EngineStatistics:
        """What was counted so far, with what the engine holds now; `way_us` is what steps took to
        each stage."""
        ways = way_us or (0,) * self.num_stages
        times = zip(self.compute_us, self.idle_us, ways, strict=True)
        return EngineStatistics(
            stages=tuple(StageStatistics(*of_stage, self.num_steps) for of_stage in times),
            num_steps=self.num_steps,
            own_us=round(self.own_s * 1e6),
            round_trip_us=self.round_trip_us,
            wire_us=self.wire_us,
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_generated_tokens=self.num_generated_tokens,
            num_preemptions=self.num_preemptions,
            num_prefixes=num_prefixes,
            kv_used_bytes=kv_used_bytes,
            kv_budget_bytes=kv_budget_bytes,
            num_running=num_running,
            num_waiting=num_waiting,
            num_prefill_tokens=self.num_prefill_tokens,
        )


def _num_prompt_tokens(batch: MicroBatch | None) -> int:
    is_chunk = batch is not None and batch.is_prompt and not batch.is_examined
    return len(batch.tokens) if batch is not None and is_chunk else 0
