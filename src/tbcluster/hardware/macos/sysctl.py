"""The kernel's variables, as `sysctl` prints them."""

from collections.abc import Mapping


def sysctl_values(text: str) -> dict[str, str]:
    """Variable -> value, for each line "name: value"."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip():
            values[name.strip()] = value.strip()
    return values


def sysctl_number(values: Mapping[str, str], name: str) -> int | None:
    """A variable's number; None where there is none."""
    value = values.get(name, "")
    # isdecimal alone takes digits of every script, and int() refuses thousands of them.
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else None
