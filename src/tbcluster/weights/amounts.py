"""Amounts of bytes in words."""

UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def decimal(num_bytes: float) -> str:
    """As disks and networks count: "12.3 GB", "512 kB", "0 B"."""
    for limit, unit in UNITS:
        if num_bytes >= limit:
            amount = num_bytes / limit
            return f"{amount:.3g} {unit}" if amount < 999.5 else f"{amount:,.0f} {unit}"
    return f"{num_bytes:.0f} B"
