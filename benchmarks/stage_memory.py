"""How much of a model's memory a stage needs: a 400 MB checkpoint whole, and cut in four.

Peaks are those of real stage workers that have loaded their part and then run a prompt and a few
tokens. Much of a small process is Python and MLX themselves, so a process that has merely imported
MLX is the baseline.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import MEGABYTE, Bar, Report, note
from benchmarks.local_pipeline import LocalPipeline, token_of
from benchmarks.memory import (
    HAS_PROC,
    IdleProcess,
    bytes_read,
    peak_resident_bytes,
    peak_resident_bytes_of_children,
)
from tests.doubles.checkpoints import LlamaSizes, write_llama

SIZES = LlamaSizes(
    num_hidden_layers=16,
    hidden_size=768,
    intermediate_size=1536,
    num_attention_heads=12,
    num_key_value_heads=12,
    vocab_size=4096,
)
NUM_STAGES = 4
PROMPT = tuple(range(300, 364))
NUM_TOKENS = 8
BAR = Bar("<", 40, "%")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, in bytes; `resident` and `read` are None where they cannot be told for it."""

    resident: int | None
    mlx: int
    read: int | None


@dataclass(frozen=True, slots=True)
class Usages:
    """Of processes that ran at the same time, and the most resident memory of any of them."""

    each: list[Usage]
    largest: int


def run() -> Report:
    """Measure the baseline, four stages, then the whole: in this order each has a higher peak than
    the one before, as `peak_resident_bytes_of_children` needs."""
    report = Report("stage-memory")
    with tempfile.TemporaryDirectory() as folder:
        path = write_llama(Path(folder) / "model", SIZES, with_tokenizer=True)
        size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
        report.add("checkpoint", size / MEGABYTE, "MB")
        idle = _measure_idle()
        note("four stages")
        stages = _measure_stages(path, NUM_STAGES)
        note("one stage")
        whole = _measure_stages(path, 1)
    _report_process(report, "MLX imported, nothing loaded", idle.each[0], None)
    _report_process(report, "whole", whole.each[0], idle)
    for number, usage in enumerate(stages.each, 1):
        _report_process(report, f"stage {number} of {NUM_STAGES}", usage, idle)
    _report_shares(report, stages, whole, idle)
    return report


def _measure_idle() -> Usages:
    process = IdleProcess()
    each = [_usage(process.pid, 0)]
    process.close()
    return Usages(each, _largest(each))


def _measure_stages(path: Path, num_stages: int) -> Usages:
    with LocalPipeline(path, num_stages) as stages:
        token = stages.begin(PROMPT)
        for _ in range(NUM_TOKENS):
            token = token_of(stages.decode(token))
        each = [_usage(status.pid, status.memory_bytes) for status in stages.statuses]
    return Usages(each, _largest(each))


def _usage(pid: int, mlx: int) -> Usage:
    if not HAS_PROC:
        return Usage(None, mlx, None)
    return Usage(peak_resident_bytes(pid), mlx, bytes_read(pid))


def _largest(each: list[Usage]) -> int:
    known = [usage.resident for usage in each if usage.resident is not None]
    return max(known) if known else peak_resident_bytes_of_children()


def _report_process(report: Report, name: str, usage: Usage, idle: Usages | None) -> None:
    if usage.resident is not None:
        report.add(f"{name}: peak resident", usage.resident / MEGABYTE, "MB")
        if idle is not None:
            over = (usage.resident - idle.largest) / MEGABYTE
            report.add(f"{name}: peak resident less baseline", over, "MB")
    if usage.mlx:
        report.add(f"{name}: MLX's peak while loading", usage.mlx / MEGABYTE, "MB")
    if usage.read is not None:
        report.add(f"{name}: bytes read", usage.read / MEGABYTE, "MB")


def _report_shares(report: Report, stages: Usages, whole: Usages, idle: Usages) -> None:
    base = idle.largest
    over = 100 * (stages.largest - base) / (whole.largest - base)
    report.add("largest stage / whole, peak resident less baseline", over, "%", BAR)
    with_base = 100 * stages.largest / whole.largest
    report.add("largest stage / whole, peak resident as it is", with_base, "%")
    mlx = 100 * max(usage.mlx for usage in stages.each) / whole.each[0].mlx
    report.add("largest stage / whole, MLX's peak while loading", mlx, "%")
