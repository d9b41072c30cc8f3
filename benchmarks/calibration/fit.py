"""Coefficients that make the cost model say what was measured: the least sum of absolute errors of
the logarithms."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from benchmarks.calibration.predict import TENSOR, predicted
from benchmarks.calibration.rows import Measured
from tbcluster.cluster.chip_speeds import MLX, Coefficients

Array = npt.NDArray[np.float64]
KINDS = ("decode", "prefill")
FIRST_DAMPING, MOST_DAMPING = 0.1, 1e7
MOST_STEPS = 40
# Of logarithms: for slopes (down, as shares end at 1), the most of a step, errors taken for none.
NUDGE, MOST_MOVE, SMALL_ERROR = -1e-3, 0.3, 0.01
# Where the search begins for collectives.
COLLECTIVE_S = 250e-6
# Those of `Coefficients`; the first one is a machine's, whatever the program.
NAMES = tuple(field.name for field in fields(Coefficients))
# What short contexts on one machine with 4, 8 and 16 bits tell.
LLAMA_CPP_NAMES = ("bandwidth_share", "two_dies_share", "layer_s", "tflops_share")


@dataclass(frozen=True, slots=True)
class Sets:
    """Coefficients of both programs that were measured, and of collectives by number of Macs."""

    mlx: Coefficients
    llama_cpp: Coefficients
    collective_s: dict[int, float]

    def with_mlx(self, mlx: Coefficients) -> "Sets":
        """With other ones for MLX."""
        return replace(self, mlx=mlx)


def errors_of(rows: Sequence[Measured], sets: Sets, what: str) -> list[float]:
    """Per cent that the model is off, for each measurement of this kind."""
    return [
        100 * abs(_predicted(row, sets, what) / value - 1)
        for row in rows
        if (value := row.value(what)) is not None
    ]


def fitted(rows: Sequence[Measured], begin: Coefficients = MLX) -> Sets:
    """The best coefficients for these measurements."""
    single = [row for row in rows if row.parallelism != TENSOR]
    llama_cpp = _least([row for row in single if not row.is_mlx], begin, LLAMA_CPP_NAMES)
    # MLX was measured on chips of two dies alone: what one die reaches is the other program's.
    begin = replace(begin, bandwidth_share=llama_cpp.bandwidth_share)
    mlx = _least([row for row in single if row.is_mlx], begin, NAMES[1:])
    sets = Sets(mlx, llama_cpp, {})
    groups = [row for row in rows if row.parallelism == TENSOR]
    collectives = {
        nodes: _best_collective([row for row in groups if row.nodes == nodes], sets)
        for nodes in sorted({row.nodes for row in groups})
    }
    return replace(sets, collective_s=collectives)


def left_out(rows: Sequence[Measured]) -> tuple[list[float], list[float]]:
    """Errors of each model's measurements under coefficients that were fitted to the others'. A
    program with one model alone is judged by the other's starting values."""
    errors: tuple[list[float], list[float]] = [], []
    for model in dict.fromkeys(row.model for row in rows):
        others = fitted([row for row in rows if row.model != model])
        mine = [row for row in rows if row.model == model]
        known = [
            row for row in mine if row.parallelism != TENSOR or row.nodes in others.collective_s
        ]
        for kind, found in zip(KINDS, errors, strict=True):
            found += errors_of(known, others, kind)
    return errors


def _least(rows: Sequence[Measured], begin: Coefficients, names: Sequence[str]) -> Coefficients:
    """Levenberg and Marquardt's method in the logarithms of these coefficients. An error has the
    inverse of its size for weight: the sum of absolute errors falls, and outliers pull little."""
    best, errors = begin, _log_errors(rows, begin)
    damping = FIRST_DAMPING
    for _ in range(MOST_STEPS):
        if not len(errors) or damping > MOST_DAMPING:
            break
        slopes = np.column_stack(
            [(_log_errors(rows, _moved(best, [name], [NUDGE])) - errors) / NUDGE for name in names]
        )
        weights = 1 / np.maximum(np.abs(errors), SMALL_ERROR)
        square = slopes.T @ (weights[:, None] * slopes)
        step = np.linalg.solve(
            square + damping * np.eye(len(names)), -slopes.T @ (weights * errors)
        )
        tried = _moved(best, names, np.clip(step, -MOST_MOVE, MOST_MOVE))
        found = _log_errors(rows, tried)
        if np.abs(found).sum() < np.abs(errors).sum():
            best, errors, damping = tried, found, damping / 5
        else:
            damping *= 5
    return best


def _moved(by: Coefficients, names: Sequence[str], logs: Iterable[float]) -> Coefficients:
    """Each times e to this power; nothing reads or computes faster than its machine can."""
    values = {
        name: getattr(by, name) * math.exp(log) for name, log in zip(names, logs, strict=True)
    }
    return replace(
        by,
        **{
            name: min(1.0, value) if name.endswith("_share") else value
            for name, value in values.items()
        },
    )


def _log_errors(rows: Sequence[Measured], by: Coefficients) -> Array:
    return np.array(
        [
            math.log(predicted(row, by, COLLECTIVE_S, what) / value)
            for row in rows
            for what in KINDS
            if (value := row.value(what)) is not None
        ]
    )


def _best_collective(rows: Sequence[Measured], sets: Sets) -> float:
    def loss(seconds: float) -> float:
        found = replace(sets, collective_s={row.nodes: seconds for row in rows})
        return sum(sum(errors_of(rows, found, kind)) for kind in KINDS)

    return min((COLLECTIVE_S * 1.02**power for power in range(-60, 60)), key=loss)


def _predicted(row: Measured, sets: Sets, what: str) -> float:
    by = sets.mlx if row.is_mlx else sets.llama_cpp
    return predicted(row, by, sets.collective_s.get(row.nodes, COLLECTIVE_S), what)
