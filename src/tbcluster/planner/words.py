"""Amounts and lists as people read them. Pure."""

from collections.abc import Sequence

GIB = 1 << 30
MIB = 1 << 20


def amount(num_bytes: float, unit: int | None = None) -> str:
    """Memory: "37.4 GiB", "1,248 GiB", "310 MiB"; in the unit that is given, GIB or MIB."""
    if unit is None:
        unit = unit_of(num_bytes)
    return f"{num_bytes / unit:,.1f}".removesuffix(".0") + (" MiB" if unit == MIB else " GiB")


def unit_of(num_bytes: float) -> int:
    """In which an amount is told."""
    return MIB if abs(num_bytes) < GIB else GIB


def rounded(num_bytes: int, unit: int) -> int:
    """What `amount` shows of it: sums of such figures are right on the screen, too."""
    return round(round(10 * num_bytes / unit) * unit / 10)


def milliseconds(seconds: float) -> str:
    """A time of a stage or hop: "12.3 ms"."""
    return f"{seconds * 1e3:.3g} ms"


def speed(tokens_per_s: float) -> str:
    """ "1,134 tokens/s", "3.2 tokens/s"."""
    figure = f"{tokens_per_s:,.0f}" if tokens_per_s >= 10 else f"{tokens_per_s:.2g}"
    return f"{figure} tokens/s"


def count(number: int, noun: str) -> str:
    """ "1 stream", "4,096 streams"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def and_list(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
