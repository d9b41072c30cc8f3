"""Amounts as people read them."""

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


def memory(num_bytes: float) -> str:
    """Memory comes in powers of two: "37.4 GiB", "48 GiB"."""
    return f"{num_bytes / 2**30:.1f}".removesuffix(".0") + " GiB"


def disk(num_bytes: float) -> str:
    """Disks are sold in powers of ten: "9.5 GB", "512 GB"."""
    return f"{num_bytes / 1e9:.1f}".removesuffix(".0") + " GB"


def round_trip(microseconds: float) -> str:
    """ "310 us", or "12.5 ms" from a millisecond up."""
    return f"{microseconds:.0f} us" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


def rate(gbps: float) -> str:
    """ "33.1 Gb/s", or "94 Mb/s" below one gigabit."""
    return f"{gbps:.1f} Gb/s" if gbps >= 1 else f"{gbps * 1000:.0f} Mb/s"


def duration(seconds: float) -> str:
    """Its largest unit alone: "12 s", "3 min", "5 h", "2 d"."""
    if seconds < MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < HOUR_S:
        return f"{seconds / MINUTE_S:.0f} min"
    if seconds < DAY_S:
        return f"{seconds / HOUR_S:.0f} h"
    return f"{seconds / DAY_S:.0f} d"
