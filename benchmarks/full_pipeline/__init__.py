"""Many streams through a full pipeline of two stages on two cores, against mlx-lm.

mlx-lm in one process uses one core; the limit of this machine is what two such processes reach side
by side, each with half of the work. All three are measured in turns, on the same weights.
"""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.full_pipeline.coordinator import measure_coordinator
from benchmarks.full_pipeline.correctness import measure_correctness
from benchmarks.full_pipeline.decoding import measure_decoding
from benchmarks.full_pipeline.paced_stages import measure_paced_stages
from benchmarks.full_pipeline.prompts import measure_prompts
from benchmarks.full_pipeline.settings import FULL, QUICK
from benchmarks.harness import Report, note

PARTS: dict[str, Callable[[Report, Any], None]] = {
    "correctness": measure_correctness,
    "decode": measure_decoding,
    "prompts": measure_prompts,
    "coordinator": measure_coordinator,
    "stages": measure_paced_stages,
}


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Measure all parts, or those that are named."""
    settings = QUICK if quick else FULL
    report = Report("full-pipeline (quick: the figures mean nothing)" if quick else "full-pipeline")
    for name in only or PARTS:
        note(f"{name}:")
        PARTS[name](report, getattr(settings, name))
    return report
