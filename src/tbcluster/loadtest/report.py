"""A run as JSON, and two of them compared. Pure."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from tbcluster.errors import EndpointError
from tbcluster.loadtest.plan import LoadPlan
from tbcluster.loadtest.run import Measured

FORMAT = "tbcluster-load-1"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured, and where from."""

    url: str
    server: str
    model: str
    api: str
    date: datetime
    machine: str
    is_whole: bool


def to_json(facts: Facts, plan: LoadPlan, measured: Sequence[Measured]) -> str:
    """All of it, each sample included, so that others can compute what they want."""
    body = {
        "format": FORMAT,
        **asdict(facts),
        "date": facts.date.isoformat(timespec="seconds"),
        "client": {"python": platform.python_version(), "tbcluster": version("tbcluster")},
        "plan": asdict(plan),
        "cells": [
            {**asdict(one.summary), "samples": [asdict(sample) for sample in one.samples]}
            for one in measured
        ],
    }
    return json.dumps(body, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A cell against the same one of an earlier run: this one's figures over that one's."""

    streams: int
    prompt_tokens: int
    output_tokens_per_s: float | None
    first_token_s: float | None
    gap_s: float | None


def ratios(content: str, measured: Sequence[Measured]) -> list[Ratio]:
    """Those of all cells that both have.

    Args:
        content: The earlier run's JSON.

    Raises:
        EndpointError: It is none.
    """
    try:
        body = json.loads(content)
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']!r} instead of {FORMAT!r}")
        before = {
            (one["cell"]["streams"], one["cell"]["prompt_tokens"]): one for one in body["cells"]
        }
    except (ValueError, LookupError, TypeError) as error:
        raise EndpointError(f"not a file that `tbcluster bench --json` wrote: {error}") from error
    found = []
    for one in measured:
        cell = one.summary.cell
        earlier = before.get((cell.streams, cell.prompt_tokens))
        if earlier is not None:
            found.append(_ratio(one, earlier))
    return found


def _ratio(one: Measured, earlier: Mapping[str, Any]) -> Ratio:
    now = asdict(one.summary)

    def over(name: str) -> float | None:
        ours, theirs = now[name], earlier[name]
        if isinstance(ours, dict) and isinstance(theirs, dict):
            ours, theirs = ours["p50"], theirs["p50"]
        return ours / theirs if ours is not None and theirs else None

    cell = one.summary.cell
    return Ratio(
        cell.streams,
        cell.prompt_tokens,
        over("output_tokens_per_s"),
        over("first_token_s"),
        over("gap_s"),
    )
