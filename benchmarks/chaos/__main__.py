"""`python -m benchmarks.chaos`, or ./scripts/chaos; exit status 1 if anything is wrong."""

import argparse
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from benchmarks.chaos.ground import chosen_ground
from benchmarks.chaos.report import SoakReport
from benchmarks.chaos.soak import Soak
from tests.doubles.faults.rack import NODES, FaultRack

FAULTS_PER_MINUTE = 10.5
# Where nobody looks at a terminal, a line every so often is enough.
LINE_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if sys.platform != "darwin":
        # On a CPU, MLX compiles with g++ at first use and is no faster for it.
        os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    num_faults = options.faults or max(1, round(options.minutes * FAULTS_PER_MINUTE))
    report = SoakReport(seed, options.minutes)
    console = Console(stderr=True)
    said = ""
    try:
        with chosen_ground() as ground, Progress(console) as progress:
            is_rack = isinstance(ground, FaultRack)
            report.ground = (
                f"a rack of {len(NODES)} nodes" if is_rack else "one machine, kills alone"
            )
            try:
                Soak(ground, report, num_faults, progress.show).run()
            finally:
                said = ground.said()
    except AssertionError as error:
        report.problems.append(str(error))
    report.print(Console())
    if options.json is not None:
        options.json.write_text(report.to_json(), encoding="utf-8")
    if options.log is not None:
        options.log.write_text(said, encoding="utf-8")
    return 0 if report.is_good else 1


class Progress:
    """One line that changes, or on no terminal one every half minute."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._shown = 0.0
        self._num_problems = 0

    def show(self, report: SoakReport, doing: str) -> None:
        """Show how far it is, and at once what was wrong."""
        problems = report.counts.problems
        for problem in problems[self._num_problems :]:
            self._console.print(f"WRONG: {problem}", markup=False, soft_wrap=True)
        self._num_problems = len(problems)
        if self._live is not None:
            self._live.update(Text(report.line(doing)))
        elif time.monotonic() - self._shown > LINE_S:
            self._shown = time.monotonic()
            self._console.print(report.line(doing), markup=False, soft_wrap=True)

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chaos",
        description="Eight streams, and faults at random: no token may be another, no request may "
        "hang, nothing may be left.",
        allow_abbrev=False,
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="for how long (20)")
    parser.add_argument("--faults", type=int, help=f"how many ({FAULTS_PER_MINUTE:g} a minute)")
    parser.add_argument("--seed", type=int, help="draws the same faults again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="write there what all have printed"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
