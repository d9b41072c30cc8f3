"""How long a model is to stay once it is idle, as Ollama's clients say it."""

import re
from math import inf
from typing import Annotated, Any

from pydantic import BeforeValidator

from tbcluster.server.fields import refusal

# Go's durations: 5m, 1h30m, -1m, 0, 1.5h.
_DURATION = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+|[+-]?0")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_LENGTH = 40
# What is longer than a hundred years is for ever: no calendar has to hold it.
LONGEST_S = 100 * 365 * 24 * 3600.0


def seconds(value: Any) -> float | None:
    """Seconds; infinity for whatever is below zero or too long, None for null.

    Raises:
        PydanticCustomError: It is neither a number of seconds nor a duration.
    """
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _bounded(value) if value >= 0 else inf
    if isinstance(value, str) and len(value) <= MAX_LENGTH and _DURATION.fullmatch(value):
        if value.startswith("-") and value != "-0":
            return inf
        return _bounded(sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(value)))
    raise refusal(
        "keep_alive", 'keep_alive is a number of seconds, or a text such as "5m" or "1h30m"'
    )


def _bounded(length_s: float) -> float:
    return inf if length_s > LONGEST_S else float(length_s)


KeepAlive = Annotated[
    float | None, BeforeValidator(seconds, json_schema_input_type=float | str | None)
]
