"""Unequal machines: the plan's layout against an even one, and what the plan says against what is.

Two nodes on this machine (network namespaces; root on Linux, and control groups of version 1), one
of which has a third of a core and a third of the other's memory. Both layouts are loaded at once,
and measured in turns.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.full_pipeline.sides import random_model
from benchmarks.harness import Bar, Report, note, report_ratio
from benchmarks.unequal_coordinator import Task
from tests.doubles.checkpoints import LlamaSizes
from tests.doubles.namespaces import Network, can_make_namespaces
from tests.doubles.rack import RackDouble

REPOSITORY = Path(__file__).parents[1]
GROUP = Path("/sys/fs/cgroup/cpu/tbcluster-bench")
# A network namespace has a /sys of its own, without control groups: there, as in a container, they
# are mounted anew, so that what runs sees its limits.
JOIN_GROUP = f"""
mount -t tmpfs none /sys/fs/cgroup && mkdir {GROUP.parent} &&
mount -t cgroup -o cpu none {GROUP.parent} && echo $$ > {GROUP}/tasks && exec "$@"
"""
# Short beside a step: a stage that was idle begins with the budget of a whole period.
PERIOD_US = 3_000
SLOW_SHARE = 1 / 3
FAST_BYTES = 1_500_000_000
MEASURE_S = 900.0
# 34 million parameters in float32; on one core some 50 ms a token.
MODEL = LlamaSizes(
    num_hidden_layers=14,
    hidden_size=448,
    intermediate_size=1216,
    num_attention_heads=7,
    num_key_value_heads=7,
    vocab_size=512,
)
GAIN_BAR = Bar(">=", 1.25, "x")
ERROR_BAR = Bar("<=", 15, "%")


@dataclass(frozen=True, slots=True)
class Part:
    """How much is measured, after one pair that is not; `num_steps` are tokens of each stream."""

    num_pairs: int
    num_steps: int


PARTS = {"two-nodes": Part(num_pairs=7, num_steps=40)}
QUICK = Part(num_pairs=5, num_steps=6)


class UnequalRack(RackDouble):
    """Whatever runs on the node `slow` has a third of a core."""

    def _command(self, node: str, *arguments: str) -> list[str]:
        command = super()._command(node, *arguments)
        if node != "slow":
            return command
        into = self.network.command(node)
        return [*into, "sh", "-c", JOIN_GROUP, "sh", *command[len(into) :]]


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Measure on this machine alone."""
    if not can_make_namespaces() or not GROUP.parent.is_dir():
        sys.exit("bench: unequal-rack needs root on Linux, and control groups of version 1")
    report = Report("unequal-rack")
    for name in only or PARTS:
        part = QUICK if quick else PARTS[name]
        with random_model(MODEL) as path, _rationed(), Network() as network:
            _report(report, _measure(network, path, part))
    return report


@contextmanager
def _rationed() -> Iterator[None]:
    GROUP.mkdir(exist_ok=True)
    (GROUP / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    (GROUP / "cpu.cfs_quota_us").write_text(str(round(PERIOD_US * SLOW_SHARE)))
    try:
        yield
    finally:
        GROUP.rmdir()


def _measure(network: Network, path: Path, part: Part) -> dict[str, Any]:
    network.add("head", "slow")
    network.cable("head", "slow")
    with UnequalRack(network, "head", "slow") as rack:
        rack.enroll_all()
        slow_bytes = round(FAST_BYTES * SLOW_SHARE)
        rack.keep("slow", "agent", "--memory", str(slow_bytes))
        task = Task(str(path), FAST_BYTES, part.num_pairs, part.num_steps)
        command = [sys.executable, "-m", "benchmarks.unequal_coordinator"]
        done = subprocess.run(
            [*network.command("head"), *command, json.dumps(asdict(task))],
            stdout=subprocess.PIPE,
            env=rack._env("head"),
            cwd=REPOSITORY,
            timeout=MEASURE_S,
            check=True,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _report(report: Report, found: dict[str, Any]) -> None:
    for side, name in enumerate(("planned", "even")):
        runs = [pair[side] for pair in found["runs"]]
        for stage, what in enumerate(found[name]):
            predicted = found["predicted_ms"][side][stage]
            measured = statistics.median(one["stage_ms"][stage] for one in runs)
            label = f"{name}, {what}"
            note(f"{label}: {predicted:.1f} ms predicted, {measured:.1f} ms measured")
            report.add(f"{label}: a step", measured, "ms")
            error = 100 * abs(predicted / measured - 1)
            report.add(f"{label}: error of the prediction", error, "%", ERROR_BAR)
        speed = statistics.median(one["tokens_per_s"] for one in runs)
        report.add(f"{name}: all streams", speed, "tokens/s")
        report.add(f"{name}: predicted", found["predicted_tokens_per_s"][side], "tokens/s")
    pairs = [(planned["tokens_per_s"], even["tokens_per_s"]) for planned, even in found["runs"]]
    report_ratio(report, "tokens a second, planned / even", pairs, GAIN_BAR)
