"""Coefficients that make the cost model say what was measured: the least sum of absolute errors of
the logarithms, one coefficient at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from benchmarks.calibration.predict import TENSOR, predicted
from benchmarks.calibration.rows import Measured
from tbcluster.cluster.chip_speeds import MLX, Coefficients

KINDS = ("decode", "prefill")
# Until a pass changes nothing that matters.
STEPS = (1.3, 1.1, 1.03, 1.01)
MOST_PASSES = 12
# Where the search begins for collectives.
COLLECTIVE_S = 250e-6
# Those of `Coefficients`; the first one is a machine's, whatever the program.
NAMES = tuple(field.name for field in fields(Coefficients))


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
    llama_cpp = _descended([row for row in single if not row.is_mlx], begin, NAMES)
    # MLX was measured on chips of two dies alone: what one die reaches is the other program's.
    begin = replace(begin, bandwidth_share=llama_cpp.bandwidth_share)
    mlx = _descended([row for row in single if row.is_mlx], begin, NAMES[1:])
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


def _descended(rows: Sequence[Measured], begin: Coefficients, names: Sequence[str]) -> Coefficients:
    best, least = begin, _loss(rows, begin)
    for step in STEPS:
        for _ in range(MOST_PASSES):
            before = least
            for name in names:
                for factor in (step, 1 / step):
                    tried = replace(best, **{name: getattr(best, name) * factor})
                    loss = _loss(rows, tried) if _is_physical(tried) else math.inf
                    if loss < least:
                        best, least = tried, loss
            if least > before * 0.9999:
                break
    return best


def _is_physical(tried: Coefficients) -> bool:
    """Nothing reads or computes faster than its machine can."""
    shares = (
        tried.bandwidth_share,
        tried.two_dies_share,
        tried.tflops_share,
        tried.packed_share,
        tried.vector_share,
    )
    return all(0 < share <= 1 for share in shares)


def _loss(rows: Sequence[Measured], by: Coefficients) -> float:
    return sum(
        abs(math.log(predicted(row, by, COLLECTIVE_S, what) / value))
        for row in rows
        for what in KINDS
        if (value := row.value(what)) is not None
    )


def _best_collective(rows: Sequence[Measured], sets: Sets) -> float:
    def loss(seconds: float) -> float:
        found = replace(sets, collective_s={row.nodes: seconds for row in rows})
        return sum(sum(errors_of(rows, found, kind)) for kind in KINDS)

    return min((COLLECTIVE_S * 1.02**power for power in range(-60, 60)), key=loss)


def _predicted(row: Measured, sets: Sets, what: str) -> float:
    by = sets.mlx if row.is_mlx else sets.llama_cpp
    return predicted(row, by, sets.collective_s.get(row.nodes, COLLECTIVE_S), what)
