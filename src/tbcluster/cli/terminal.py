"""Text on its way to a terminal: what another machine said must not act on it."""

import logging


def harmless(text: str, *, keeps: str = "") -> str:
    """Characters that could move the cursor or change what stands above are replaced, except for
    those in `keeps`."""
    return "".join(
        c if c.isprintable() or c in keeps else "\N{REPLACEMENT CHARACTER}" for c in text
    )


class HarmlessFormatter(logging.Formatter):
    """Log lines, whose words may be another node's."""

    def format(self, record: logging.LogRecord) -> str:
        """As the base class, with its line ends."""
        return harmless(super().format(record), keeps="\n\t")


def log_to_terminal(line: str) -> None:
    """Write warnings and worse to standard error, and nowhere else; `line` is their format."""
    handler = logging.StreamHandler()
    handler.setFormatter(HarmlessFormatter(line))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
