"""A run as JSON, and two of them compared. Pure."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Literal

import msgspec

from tbcluster.loadtest.plan import Cell, LoadPlan
from tbcluster.loadtest.run import Measured
from tbcluster.loadtest.summary import CellSummary, Spread

FORMAT: Literal["tbcluster-load-1"] = "tbcluster-load-1"


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


class EarlierSpread(msgspec.Struct, frozen=True):
    """Of a spread what is compared."""

    p50: float


class EarlierCell(msgspec.Struct, frozen=True):
    """Of a cell what is compared."""

    cell: Cell
    output_tokens_per_s: float
    first_token_s: EarlierSpread | None
    gap_s: EarlierSpread | None


class Earlier(msgspec.Struct, frozen=True):
    """An earlier run, as `to_json` wrote it."""

    format: Literal["tbcluster-load-1"]
    cells: tuple[EarlierCell, ...]


def read_earlier(content: str) -> Earlier:
    """The run of a file.

    Raises:
        ValueError: It is none; says what is wrong.
    """
    try:
        return msgspec.json.decode(content, type=Earlier)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a file that `tbcluster bench --json` wrote: {error}") from error


def ratios(earlier: Earlier, measured: Sequence[Measured]) -> list[Ratio]:
    """Those of all cells that both runs have."""
    before = {one.cell: one for one in earlier.cells}
    return [
        _ratio(one.summary, before[one.summary.cell])
        for one in measured
        if one.summary.cell in before
    ]


def _ratio(now: CellSummary, before: EarlierCell) -> Ratio:
    return Ratio(
        now.cell.streams,
        now.cell.prompt_tokens,
        _over(now.output_tokens_per_s, before.output_tokens_per_s),
        _over(_median(now.first_token_s), _median(before.first_token_s)),
        _over(_median(now.gap_s), _median(before.gap_s)),
    )


def _median(spread: Spread | EarlierSpread | None) -> float | None:
    return None if spread is None else spread.p50


def _over(now: float | None, before: float | None) -> float | None:
    return now / before if now is not None and before else None
