"""One greedy continuation and how fast it came."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decode:
    """Token ids, and milliseconds per token after the first (whose time is the prompt's)."""

    tokens: tuple[int, ...]
    ms_per_token: float


def decode_of(timed_tokens: Iterable[tuple[int, float]]) -> Decode:
    """From tokens with the seconds at which each one came.

    Raises:
        ValueError: There are not two tokens to measure between.
    """
    tokens, times = zip(*timed_tokens, strict=True)
    if len(tokens) < 2:
        raise ValueError("one token came, decoding begins with the second")
    return Decode(tokens, (times[-1] - times[0]) / (len(times) - 1) * 1e3)
