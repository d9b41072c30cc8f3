"""What a soak found: for people while it runs and at its end, and as JSON."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.chaos.clients import Counts
from benchmarks.chaos.leaks import Inventory
from benchmarks.machine import Machine, this_machine

# Of each kind of problem so many are kept in words.
MAX_PROBLEMS = 50


@dataclass(slots=True)
class FaultRecord:
    """One fault: when, since the beginning; what it hit; and for how long the stream that waited
    longest had no token."""

    at_s: float
    kind: str
    hit: str
    pause_s: float = 0.0


@dataclass(slots=True)
class SoakReport:
    """One soak.

    Attributes:
        ground: Where it was.
        num_missed: Faults that had nothing to hit, since the server did not answer; others were
            drawn in their place.
        problems: What is wrong and was not seen by a client.
    """

    seed: int
    minutes: float
    ground: str = ""
    faults: list[FaultRecord] = field(default_factory=list)
    num_missed: int = 0
    counts: Counts = field(default_factory=Counts)
    problems: list[str] = field(default_factory=list)
    before: Inventory | None = None
    after: Inventory | None = None
    machine: Machine = field(default_factory=this_machine)
    date: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=time.monotonic)

    @property
    def is_good(self) -> bool:
        """Whether nothing was wrong, and anything was seen at all."""
        counts = self.counts
        bad = counts.num_wrong + counts.num_hung + counts.num_errors
        has_seen = bool(self.faults) and counts.num_answers > 0
        return not bad and not self.problems and has_seen

    def pauses(self) -> dict[str, list[float]]:
        """Seconds, by kind of fault."""
        by_kind: dict[str, list[float]] = {}
        for fault in self.faults:
            by_kind.setdefault(fault.kind, []).append(fault.pause_s)
        return dict(sorted(by_kind.items()))

    def to_json(self) -> str:
        """All of it."""
        counts = asdict(self.counts)
        counts["problems"] = counts["problems"][:MAX_PROBLEMS]
        content = {
            "benchmark": "chaos",
            "date": self.date.isoformat(timespec="seconds"),
            "machine": asdict(self.machine),
            "ground": self.ground,
            "seed": self.seed,
            "minutes": self.minutes,
            "good": self.is_good,
            "num_faults": len(self.faults),
            "num_missed": self.num_missed,
            "pauses_s": {kind: spread(pauses) for kind, pauses in self.pauses().items()},
            "clients": counts,
            "problems": self.problems[:MAX_PROBLEMS],
            "before": None if self.before is None else self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
            "faults": [asdict(fault) for fault in self.faults],
        }
        return json.dumps(content, indent=2) + "\n"

    def line(self, doing: str) -> str:
        """How far it is."""
        counts = self.counts
        minutes = (time.monotonic() - self.started) / 60
        return (
            f"{minutes:4.1f} min  {len(self.faults)} faults  {counts.num_answers} answers  "
            f"{counts.num_wrong} wrong  {counts.num_hung} hung  {counts.num_errors} errors  "
            f"{counts.num_sent_again} sent again  [{doing}]"
        )

    def print(self, console: Console) -> None:
        """Tables, and what was wrong."""
        table = Table(
            title=f"chaos, seed {self.seed}, {self.ground}",
            caption=str(self.machine),
            title_justify="left",
        )
        for name in ("Fault", "Times", "Pause, median", "p95", "Longest"):
            table.add_column(name, justify="left" if name == "Fault" else "right")
        for kind, pauses in self.pauses().items():
            figures = spread(pauses)
            shown = [f"{figures[key]:.2f} s" for key in ("median", "p95", "max")]
            table.add_row(kind, str(len(pauses)), *shown)
        console.print(table)
        console.print(self._sums())
        for problem in [*self.problems, *self.counts.problems][:MAX_PROBLEMS]:
            console.print(f"WRONG: {problem}", markup=False)
        console.print("good" if self.is_good else "NOT good")

    def _sums(self) -> Table:
        counts = self.counts
        table = Table(show_header=False)
        rows: list[tuple[str, Any]] = [
            ("faults", len(self.faults)),
            ("answers, all as in the undisturbed run", counts.num_answers),
            ("tokens", counts.num_tokens),
            ("wrong answers", counts.num_wrong),
            ("hung requests", counts.num_hung),
            ("requests that ended in an error", counts.num_errors),
            ("sent again, since the coordinator was killed", counts.num_sent_again),
        ]
        if self.before is not None and self.after is not None:
            for role, had in self.before.memory_mb.items():
                has = self.after.memory_mb.get(role, 0.0)
                rows.append((f"memory before, after: {role}", f"{had:.1f}, {has:.1f} MB"))
            rows.append(("sockets before, after", f"{self.before.sockets}, {self.after.sockets}"))
        for name, value in rows:
            table.add_row(name, str(value))
        return table


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum."""
    ordered = sorted(values)
    return {
        "num": len(ordered),
        "median": round(statistics.median(ordered), 3),
        "p95": round(ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))], 3),
        "max": round(ordered[-1], 3),
    }
