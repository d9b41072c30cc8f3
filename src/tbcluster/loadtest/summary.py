"""Figures of a cell from its samples. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tbcluster.loadtest.plan import Cell
from tbcluster.loadtest.samples import Sample

PERCENTS = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some values, in their unit; percentiles are values that occurred."""

    mean: float
    p50: float
    p90: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class CellSummary:
    """What a cell gave.

    Attributes:
        seconds: From when the first request was sent until the last had ended.
        num_good, num_short: Requests that were answered, and those of them that ended early.
        errors: What the others were told, once each, with how often.
        output_tokens_per_s: Of all clients together, over all of `seconds`.
        stream_tokens_per_s: Of one client, after its first token.
        prompt_tokens_per_s: A prompt's tokens over the time to its first token.
        first_token_s, gap_s, total_s: Seconds; gaps are between pieces, which hold `piece_tokens`.
        prompt_tokens: As the server counts them, least and most.
        joules_per_token: Where the server says it.
    """

    cell: Cell
    seconds: float
    num_good: int
    num_short: int
    errors: tuple[tuple[str, int], ...]
    output_tokens_per_s: float
    stream_tokens_per_s: Spread | None
    prompt_tokens_per_s: Spread | None
    first_token_s: Spread | None
    gap_s: Spread | None
    total_s: Spread | None
    piece_tokens: float | None
    prompt_tokens: tuple[int, int] | None
    cached_tokens: int
    joules_per_token: float | None


def summarize(cell: Cell, samples: Sequence[Sample], seconds: float) -> CellSummary:
    """The figures of a cell."""
    good = [sample for sample in samples if sample.is_good]
    num_tokens = sum(sample.num_tokens for sample in good)
    num_pieces = sum(len(sample.chunks_at) for sample in good)
    rates = [rate for sample in good if (rate := sample.tokens_per_s) is not None]
    prompts = [sample.prompt_tokens for sample in good if sample.prompt_tokens is not None]
    prompt_rates = [
        sample.prompt_tokens / sample.first_token_s
        for sample in good
        if sample.prompt_tokens and sample.first_token_s > 0
    ]
    paid = [sample for sample in good if sample.joules is not None]
    return CellSummary(
        cell=cell,
        seconds=seconds,
        num_good=len(good),
        num_short=sum(sample.is_short for sample in good),
        errors=_errors(samples),
        output_tokens_per_s=num_tokens / seconds if seconds > 0 else 0.0,
        stream_tokens_per_s=spread(rates),
        prompt_tokens_per_s=spread(prompt_rates),
        first_token_s=spread([sample.first_token_s for sample in good]),
        gap_s=spread([gap for sample in good for gap in sample.gaps_s]),
        total_s=spread([sample.total_s for sample in good]),
        piece_tokens=num_tokens / num_pieces if num_pieces else None,
        prompt_tokens=(min(prompts), max(prompts)) if prompts else None,
        cached_tokens=sum(sample.cached_tokens or 0 for sample in good),
        joules_per_token=_joules_per_token(paid),
    )


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and percentiles; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    p50, p90, p99 = (percentile(ordered, percent) for percent in PERCENTS)
    return Spread(fmean(ordered), p50, p90, p99, ordered[-1])


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent are not above (nearest rank)."""
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def _joules_per_token(paid: Sequence[Sample]) -> float | None:
    num_tokens = sum(sample.num_tokens for sample in paid)
    return sum(sample.joules or 0.0 for sample in paid) / num_tokens if num_tokens else None


def _errors(samples: Sequence[Sample]) -> tuple[tuple[str, int], ...]:
    told = Counter(sample.error or "no token came" for sample in samples if not sample.is_good)
    return tuple(told.most_common())
