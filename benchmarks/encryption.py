"""What encryption costs: one stream on two machines, sealed and in the clear.

The machines are network namespaces with one cable between them (root on Linux); the coordinator
and stage 0 are on the one, stage 1 on the other, so that each token crosses the cable twice. Both
sides are the same processes, told in turns to use the one kind of connections or the other.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.full_pipeline.settings import DECODE_MODEL, TINY_MODEL
from benchmarks.full_pipeline.sides import random_model
from benchmarks.harness import Bar, Report, interleaved_pairs, note, report_ratio
from benchmarks.linked_pipeline import FAR, NEAR, linked_pipeline
from tests.doubles.checkpoints import LlamaSizes
from tests.doubles.namespaces import End, Network, can_make_namespaces

BAR = Bar(">=", 0.97, "x")


@dataclass(frozen=True, slots=True)
class Part:
    """What is measured on one model.

    Attributes:
        num_starts: How often the processes are started anew.
        num_tokens: That each side of a pair decodes.
    """

    model: LlamaSizes
    num_starts: int
    pairs_per_start: int
    num_tokens: int
    bar: Bar | None = None


PARTS = {
    # Some tens of milliseconds a token.
    "realistic": Part(DECODE_MODEL, num_starts=3, pairs_per_start=3, num_tokens=25, bar=BAR),
    # Hardly any computing: connections are nearly all there is.
    "toy": Part(TINY_MODEL, num_starts=1, pairs_per_start=9, num_tokens=400),
}
QUICK = Part(TINY_MODEL, num_starts=1, pairs_per_start=5, num_tokens=20)


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Measure the parts on this machine alone."""
    if not can_make_namespaces():
        sys.exit("bench: encryption needs network namespaces: run it as root on Linux")
    report = Report("encryption")
    with Network() as network:
        network.add(NEAR, FAR)
        ends = network.cable(NEAR, FAR)
        for name in only or PARTS:
            _measure(report, name, QUICK if quick else PARTS[name], network, ends)
    return report


def _measure(report: Report, name: str, part: Part, network: Network, ends: Sequence[End]) -> None:
    pairs: list[tuple[float, float]] = []
    with random_model(part.model) as path:
        for start in range(1, part.num_starts + 1):
            note(f"{name}: start {start} of {part.num_starts}")
            with linked_pipeline(network, ends, path) as pipeline:
                pairs += interleaved_pairs(
                    lambda: pipeline.ms_per_token(part.num_tokens, is_sealed=False),
                    lambda: pipeline.ms_per_token(part.num_tokens, is_sealed=True),
                    part.pairs_per_start,
                )
    for side, times in zip(("in the clear", "encrypted"), zip(*pairs, strict=True), strict=True):
        report.add(f"{name}: {side}, time per token", statistics.median(times), "ms")
    report_ratio(report, f"{name}: speed encrypted / in the clear", pairs, part.bar)
