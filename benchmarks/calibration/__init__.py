"""The cost model against published measurements: its coefficients fitted, and how far off it is.

The measurements are a JSON file that is not part of this project (some may not be passed on): a
list of objects with category, model, bits, chip, gpu_cores, nodes, parallelism, prompt_tokens,
gen_tokens, decode_tps and prefill_tps. `--input FILE` names it.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.calibration.fit import Sets, errors_of, fitted, left_out
from benchmarks.calibration.rows import Measured, families, read_rows
from benchmarks.harness import Bar, Report, note, shown
from tbcluster.cluster.chip_speeds import MLX, Coefficients

INPUT = "TBCLUSTER_BENCH_INPUT"
DECODE_BAR, PREFILL_BAR = Bar("<=", 12, "%"), Bar("<=", 20, "%")
KINDS = ("decode", "prefill")


def run() -> Report:
    """Fit, compare, leave out.

    Raises:
        SystemExit: No measurements were named.
    """
    path = os.environ.get(INPUT)
    if not path:
        raise SystemExit(f"bench: calibration needs measurements: --input FILE.json; {__doc__}")
    rows = read_rows(Path(path))
    note(f"{len(rows)} measurements")
    report = Report("calibration")
    sets = fitted(rows)
    _report_errors(report, rows, sets, "fitted")
    _report_errors(report, [row for row in rows if row.is_mlx], sets.with_mlx(MLX), "shipped")
    _show_families(rows, sets)
    for kind, errors in zip(KINDS, left_out(rows), strict=True):
        report.add(f"{kind}, each model left out of the fit: median error", _median(errors), "%")
    for name, value in asdict(sets.mlx).items():
        report.add(f"MLX: {name}", value * _scale(name), _unit(name))
        report.add(f"MLX: {name}, as shipped", getattr(MLX, name) * _scale(name), _unit(name))
    for field in fields(Coefficients):
        value = getattr(sets.llama_cpp, field.name)
        report.add(f"llama.cpp: {field.name}", value * _scale(field.name), _unit(field.name))
    for nodes, seconds in sorted(sets.collective_s.items()):
        report.add(f"all-reduce of {nodes} Macs", seconds * 1e6, "us")
    return report


def _report_errors(report: Report, rows: Sequence[Measured], sets: Sets, which: str) -> None:
    for kind, bar in zip(KINDS, (DECODE_BAR, PREFILL_BAR), strict=True):
        errors = errors_of(rows, sets, kind)
        report.add(f"{kind}, {which} coefficients: median error", _median(errors), "%", bar)
        report.add(f"{kind}, {which} coefficients: largest error", max(errors), "%")


def _show_families(rows: Sequence[Measured], sets: Sets) -> None:
    table = Table(title="errors by family, %", title_justify="left")
    for name in ("family", "rows", "decode median", "worst", "prefill median", "worst"):
        table.add_column(name, justify="left" if name == "family" else "right")
    for family, members in families(rows).items():
        cells = []
        for kind in KINDS:
            errors = errors_of(members, sets, kind)
            cells += [shown(_median(errors)), shown(max(errors))] if errors else ["-", "-"]
        table.add_row(family, str(len(members)), *cells)
    Console(stderr=True).print(table)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _unit(name: str) -> str:
    return "us" if name.endswith("_s") else ""


def _scale(name: str) -> float:
    return 1e6 if name.endswith("_s") else 1.0
