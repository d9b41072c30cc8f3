"""Amounts and lists as people read them. Pure."""

from collections.abc import Sequence

GIB = 1 << 30
MIB = 1 << 20


def amount(num_bytes: float) -> str:
    """Memory: "37.4 GiB", "48 GiB", "310 MiB"."""
    if abs(num_bytes) < GIB:
        return f"{num_bytes / MIB:.1f}".removesuffix(".0") + " MiB"
    return f"{num_bytes / GIB:.1f}".removesuffix(".0") + " GiB"


def milliseconds(seconds: float) -> str:
    """A time of a stage or hop: "12.3 ms"."""
    return f"{seconds * 1e3:.3g} ms"


def speed(tokens_per_s: float) -> str:
    """ "41 tokens/s", "3.2 tokens/s"."""
    return f"{tokens_per_s:.0f} tokens/s" if tokens_per_s >= 10 else f"{tokens_per_s:.2g} tokens/s"


def count(number: int, noun: str) -> str:
    """ "1 stream", "2 streams"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def and_list(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
