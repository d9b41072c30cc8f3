"""How the clocks of stages stand against the coordinator's, from causality alone. Pure.

A step cannot be begun by a stage before it was sent and the stages before had computed it; nor can
it come back before the stage ended it and those behind had computed it. Every step bounds a stage's
clock from both sides; the middle of the tightest bounds is taken. What remains unknown is how a
round trip's time on the wire is shared by its two ways. Clocks of two machines drift apart by up to
some 50 microseconds a second: steps of other seconds tell nothing.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from tbcluster.tracing.records import StepRecord

US_PER_S = 1e6
# Steps of the same so many seconds are matched together.
BUCKET_S = 8.0
# Bounds that hold 0, or miss it by so little, are of the very clock that the coordinator has: those
# of two machines, which count from when they were started, are seconds apart at least.
SAME_CLOCK_US = 500.0


class Offset(NamedTuple):
    """What a stage's clock shows more than the coordinator's, in microseconds, give or take."""

    offset_us: float = 0.0
    error_us: float = 0.0


class _Moment(NamedTuple):
    """Steps of one tell of the same clocks."""

    bucket: int
    epoch: int
    num_stages: int


class Clocks:
    """How all stages' clocks stood when these steps were under way.

    Args:
        records: Of any times.
    """

    def __init__(self, records: Iterable[StepRecord]) -> None:
        together: dict[_Moment, list[StepRecord]] = {}
        for record in records:
            together.setdefault(_moment(record), []).append(record)
        self._offsets = {
            moment: offsets(group, num_stages=moment.num_stages)
            for moment, group in together.items()
        }

    def of(self, record: StepRecord) -> tuple[Offset, ...]:
        """Of each stage that one of the steps went through."""
        return self._offsets[_moment(record)]


def _moment(record: StepRecord) -> _Moment:
    return _Moment(int(record.sent_at // BUCKET_S), record.epoch, record.num_stages)


def offsets(records: Iterable[StepRecord], num_stages: int) -> tuple[Offset, ...]:
    """Of each stage, by steps of about the same time that went through as many; those of a stage
    that no step tells anything about are 0."""
    lowest = [-math.inf] * num_stages
    highest = [math.inf] * num_stages
    for record in records:
        durations = [timing.ended_us - timing.began_us for timing in record.timings]
        before, behind = 0, sum(durations)
        sent_us, back_us = record.sent_at * US_PER_S, record.back_at * US_PER_S
        for visit, timing in enumerate(record.timings):
            stage = visit % num_stages
            behind -= durations[visit]
            if timing.ended_us:
                lowest[stage] = max(lowest[stage], timing.ended_us + behind - back_us)
                highest[stage] = min(highest[stage], timing.began_us - before - sent_us)
            before += durations[visit]
    return tuple(_between(low, high) for low, high in zip(lowest, highest, strict=True))


def _between(low: float, high: float) -> Offset:
    if math.isinf(low) or math.isinf(high) or low - SAME_CLOCK_US <= 0 <= high + SAME_CLOCK_US:
        return Offset()
    return Offset((low + high) / 2, abs(high - low) / 2)


class Part(NamedTuple):
    """One visit of a step, in seconds on the coordinator's clock."""

    stage: int
    wire_s: float
    queue_s: float
    begun_at: float
    compute_s: float


def parts(record: StepRecord, clocks: tuple[Offset, ...]) -> tuple[tuple[Part, ...], float]:
    """Where a step was while it was away, and how long its way back took. All of it together is the
    time between when it was sent and when it was back, to the last microsecond."""
    at, found = record.sent_at, []
    for visit, timing in enumerate(record.timings):
        stage = visit % record.num_stages
        if not timing.ended_us:
            continue
        offset_us = clocks[stage].offset_us
        begun_at = _within((timing.began_us - offset_us) / US_PER_S, at, record.back_at)
        ended_at = _within((timing.ended_us - offset_us) / US_PER_S, begun_at, record.back_at)
        gap_s = begun_at - at
        # A stage that had nothing to do took it at once when it came.
        wire_s = gap_s if timing.wait_us > 0 else 0.0
        found.append(Part(stage, wire_s, gap_s - wire_s, begun_at, ended_at - begun_at))
        at = ended_at
    return tuple(found), record.back_at - at


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
