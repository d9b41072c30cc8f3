"""What every benchmark shares: interleaved pairs, rows with bars, the report.

Timings drift with whatever else a machine does. Two sides are therefore measured in turns
(A B A B ...), each pair gives one ratio, and the median of the ratios is what counts.
"""

import json
import operator
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.table import Table

from benchmarks.machine import Machine, this_machine

A = TypeVar("A")
B = TypeVar("B")

MIN_PAIRS = 5
# Between two lines on how far a benchmark is.
NOTE_S = 2.0
MEGABYTE = 1e6
RELATIONS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


@dataclass(frozen=True, slots=True)
class Bar:
    """What a value has to reach."""

    relation: Literal[">=", "<=", "<"]
    limit: float
    unit: str = ""

    def is_met_by(self, value: float) -> bool:
        return RELATIONS[self.relation](value, self.limit)

    def __str__(self) -> str:
        return f"{self.relation} {self.limit:g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value; without a bar it is there to inform."""

    measure: str
    value: float
    unit: str
    bar: Bar | None = None

    @property
    def is_met(self) -> bool | None:
        """None without a bar."""
        return None if self.bar is None else self.bar.is_met_by(self.value)

    def to_dict(self) -> dict[str, Any]:
        return {
            "measure": self.measure,
            "value": self.value,
            "unit": self.unit,
            "bar": None if self.bar is None else str(self.bar),
            "met": self.is_met,
        }


@dataclass(slots=True)
class Report:
    """What one run of one benchmark found."""

    benchmark: str
    rows: list[Row] = field(default_factory=list)
    machine: Machine = field(default_factory=this_machine)
    date: datetime = field(default_factory=lambda: datetime.now(UTC))

    def add(self, measure: str, value: float, unit: str, bar: Bar | None = None) -> None:
        """Append a row."""
        self.rows.append(Row(measure, value, unit, bar))

    @property
    def is_met(self) -> bool:
        """Whether no bar was missed."""
        return all(row.is_met is not False for row in self.rows)

    def to_json(self) -> str:
        content = {
            "benchmark": self.benchmark,
            "date": self.date.isoformat(timespec="seconds"),
            "machine": asdict(self.machine),
            "rows": [row.to_dict() for row in self.rows],
        }
        return json.dumps(content, indent=2) + "\n"

    def print(self, console: Console | None = None) -> None:
        """Show a table to people."""
        table = Table(title=self.benchmark, caption=str(self.machine), title_justify="left")
        table.add_column("Measure")
        table.add_column("Value", justify="right")
        table.add_column("Bar")
        for row in self.rows:
            verdict = "" if row.bar is None else f"{row.bar}  {'met' if row.is_met else 'MISSED'}"
            table.add_row(row.measure, f"{shown(row.value)} {row.unit}".rstrip(), verdict)
        (console or Console()).print(table)


def shown(value: float) -> str:
    """A number with as many digits as are worth reading."""
    decimals = next((d for d, limit in ((0, 100), (1, 10)) if abs(value) >= limit), 2)
    return f"{value:,.{decimals}f}"


def interleaved_pairs(
    first: Callable[[], A],
    second: Callable[[], B],
    num_pairs: int,
    clock: Callable[[], float] = time.monotonic,
) -> list[tuple[A, B]]:
    """Run both in turns. One more pair goes before those that are returned, to warm up. How far
    it is goes to people, a line at most every `NOTE_S` seconds."""
    began = said_at = clock()
    pairs = []
    for number in range(1 + num_pairs):
        pairs.append((first(), second()))
        now = clock()
        if number < num_pairs and now - said_at >= NOTE_S:
            said_at = now
            left_s = (now - began) / (number + 1) * (num_pairs - number)
            what = f"pair {number} of {num_pairs}" if number else "warmed up"
            note(f"{what}; {left_s:,.0f} s to go")
    return pairs[1:]


def median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Median over the pairs of first / second.

    Raises:
        ValueError: There are fewer pairs than a median is worth.
    """
    if len(pairs) < MIN_PAIRS:
        raise ValueError(f"{len(pairs)} pairs are too few for a median: take {MIN_PAIRS} or more")
    return statistics.median(first / second for first, second in pairs)


def note_ratios(what: str, pairs: Sequence[tuple[float, float]]) -> None:
    """Show people how far the ratios of a measurement lie apart."""
    ratios = sorted(first / second for first, second in pairs)
    note(f"{what}: ratios of {len(ratios)} pairs " + " ".join(f"{ratio:.3f}" for ratio in ratios))


def report_ratio(
    report: Report, measure: str, pairs: Sequence[tuple[float, float]], bar: Bar | None
) -> None:
    """Append the median ratio of these pairs, and show people all of them."""
    report.add(measure, median_ratio(pairs), "x", bar)
    note_ratios(measure, pairs)


def note(line: str) -> None:
    """Tell people how far a benchmark is."""
    print(line, file=sys.stderr, flush=True)
