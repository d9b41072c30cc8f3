"""How sizes of models are said."""

from collections.abc import Mapping


def in_words(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:,.2f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def sizes_in_words(taken: Mapping[str, Mapping[str, int]]) -> str:
    """Models and what each takes over all nodes."""
    return ", ".join(f"{name} ({in_words(sum(of.values()))})" for name, of in taken.items())
