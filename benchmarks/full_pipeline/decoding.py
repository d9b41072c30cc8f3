"""Decode speed of one stream and of many; the busiest stage's idle share."""

import random
import statistics
from dataclasses import dataclass, field

from benchmarks.full_pipeline.settings import DecodeSettings
from benchmarks.full_pipeline.sides import Sides, random_model, started_sides
from benchmarks.full_pipeline.streams import decode, random_prompt, running
from benchmarks.harness import (
    Bar,
    Report,
    interleaved_pairs,
    note,
    report_ratio,
)

ONE_STREAM_BAR = Bar(">=", 0.95, "x")
LIMIT_BAR = Bar(">=", 0.93, "x")
ONE_PROCESS_BAR = Bar(">=", 1.5, "x")
IDLE_BAR = Bar("<=", 8, "%")


@dataclass(frozen=True, slots=True)
class ManyStreams:
    """One round, in tokens per second, and the busiest stage's idle share (0..1) in it."""

    one: float
    side_by_side: float
    ours: float
    idle_share: float


@dataclass(slots=True)
class Rounds:
    """All that was measured; one stream in milliseconds per token, (mlx-lm, tbcluster)."""

    one_stream: list[tuple[float, float]] = field(default_factory=list)
    many_streams: dict[int, list[ManyStreams]] = field(default_factory=dict)


def measure_decoding(report: Report, settings: DecodeSettings) -> None:
    """Add the rows on decoding."""
    rounds = Rounds(many_streams={count: [] for count in settings.stream_counts})
    with random_model(settings.model) as path:
        for start in range(1, settings.num_starts + 1):
            note(f"start {start} of {settings.num_starts}")
            with started_sides(path) as sides:
                _measure_start(sides, settings, random.Random(start), rounds)
    _report_one_stream(report, rounds.one_stream)
    for count, some in rounds.many_streams.items():
        _report_many_streams(report, count, some)
        _report_idle_share(report, count, some, is_busiest=count == max(rounds.many_streams))


def _measure_start(
    sides: Sides, settings: DecodeSettings, source: random.Random, rounds: Rounds
) -> None:
    note("1 stream")
    rounds.one_stream += _one_stream(sides, settings, source)
    for count in settings.stream_counts:
        note(f"{count} streams")
        rounds.many_streams[count] += _many_streams(sides, settings, source, count)


def _one_stream(
    sides: Sides, settings: DecodeSettings, source: random.Random
) -> list[tuple[float, float]]:
    prompt = random_prompt(source, settings.num_prompt_tokens, settings.model.vocab_size)
    decodes = interleaved_pairs(
        lambda: sides.one.decode(prompt, settings.num_tokens),
        lambda: decode(sides.cluster, prompt, settings.num_tokens),
        settings.pairs_per_start,
    )
    for theirs, ours in decodes:
        assert ours.tokens == theirs.tokens, "greedy tokens differ from mlx-lm's"
    return [(theirs.ms_per_token, ours.ms_per_token) for theirs, ours in decodes]


def _many_streams(
    sides: Sides, settings: DecodeSettings, source: random.Random, num_streams: int
) -> list[ManyStreams]:
    size, vocab_size = settings.num_prompt_tokens, settings.model.vocab_size
    prompts = [random_prompt(source, size, vocab_size) for _ in range(num_streams)]
    steps = settings.num_steps

    def theirs() -> tuple[float, float]:
        alone = sides.one.decode_many(prompts, steps)
        return alone, sides.side_by_side.decode_many(prompts, steps)

    pairs = interleaved_pairs(
        theirs, lambda: _ours(sides, prompts, steps), settings.pairs_per_start
    )
    return [ManyStreams(*theirs, *ours) for theirs, ours in pairs]


def _ours(sides: Sides, prompts: list[list[int]], num_steps: int) -> tuple[float, float]:
    with running(sides.cluster, prompts) as streams:
        sides.cluster.reset_statistics()
        window = streams.run(num_steps)
        idle_share = min(stage.idle_share for stage in sides.cluster.statistics().stages)
    return streams.tokens_per_s(window), idle_share


def _report_one_stream(report: Report, pairs: list[tuple[float, float]]) -> None:
    theirs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    report.add("1 stream: mlx-lm, time per token", theirs, "ms")
    report.add("1 stream: tbcluster, time per token", ours, "ms")
    report_ratio(report, "1 stream: speed / mlx-lm", pairs, ONE_STREAM_BAR)


def _report_many_streams(report: Report, num_streams: int, rounds: list[ManyStreams]) -> None:
    name = f"{num_streams} streams"
    for side, rates in (
        ("mlx-lm in one process", [r.one for r in rounds]),
        ("mlx-lm in two, half each", [r.side_by_side for r in rounds]),
        ("tbcluster", [r.ours for r in rounds]),
    ):
        report.add(f"{name}: {side}", statistics.median(rates), "tok/s")
    limits = [(r.ours, r.side_by_side) for r in rounds]
    report_ratio(report, f"{name}: speed / limit of two cores", limits, LIMIT_BAR)
    ones = [(r.ours, r.one) for r in rounds]
    report_ratio(report, f"{name}: speed / one mlx-lm", ones, ONE_PROCESS_BAR)


def _report_idle_share(
    report: Report, num_streams: int, rounds: list[ManyStreams], *, is_busiest: bool
) -> None:
    share = 100 * statistics.median(r.idle_share for r in rounds)
    bar = IDLE_BAR if is_busiest else None
    report.add(f"{num_streams} streams: idle share of the busiest stage", share, "%", bar)
