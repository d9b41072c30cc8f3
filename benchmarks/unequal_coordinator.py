"""The coordinator of `benchmarks.unequal_rack`, a process of its own on the head node: the planned
layout and an even one, loaded beside each other and measured in turns."""

import json
import random
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.full_pipeline.streams import random_prompt, running
from benchmarks.harness import interleaved_pairs, note
from tbcluster import Cluster
from tbcluster.cluster.rack.rack import Rack
from tbcluster.core import StageRange
from tbcluster.planner.partition import even_split
from tbcluster.planner.plan import Plan, Wishes

PROMPT_TOKENS, CONTEXT, NUM_STREAMS = 16, 256, 4
VOCABULARY = 512


@dataclass(frozen=True, slots=True)
class Task:
    """What is measured.

    Attributes:
        head_bytes: What models may take on the head node.
        num_steps: Tokens of each stream in a run.
    """

    model: str
    head_bytes: int
    num_pairs: int
    num_steps: int


@dataclass(frozen=True, slots=True)
class Run:
    """Some steps of all streams: tokens a second, and milliseconds that a step takes of each
    stage."""

    tokens_per_s: float
    stage_ms: list[float]


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it; times in milliseconds, stage by stage.

    Attributes:
        predicted_ms: Of both layouts' stages, by the planner.
        runs: Pairs of runs, planned and even.
    """

    planned: list[str]
    even: list[str]
    predicted_ms: list[list[float]]
    predicted_tokens_per_s: list[float]
    runs: list[list[Run]]


def measure(task: Task) -> Found:
    """Load both and measure them."""
    wishes = Wishes(context=CONTEXT, streams=NUM_STREAMS, replicas=1)
    with ExitStack() as stack:
        rack = stack.enter_context(Rack(memory_bytes=task.head_bytes, on_note=note))
        planned = stack.enter_context(
            Cluster(task.model, rack=rack, wishes=wishes, describes=False, on_note=note)
        )
        plan = _plan_of(planned)
        even = stack.enter_context(
            Cluster(
                task.model,
                rack=rack,
                wishes=wishes,
                layout=[_evenly(plan)],
                describes=False,
                on_note=note,
            )
        )
        runs = interleaved_pairs(
            lambda: _run(planned, task.num_steps),
            lambda: _run(even, task.num_steps),
            task.num_pairs,
        )
        plans = [plan, _plan_of(even)]
    return Found(
        *(_lines(one) for one in plans),
        [[1e3 * stage.decode_s for stage in one.replicas[0].stages] for one in plans],
        [one.replicas[0].tokens_per_s for one in plans],
        [list(pair) for pair in runs],
    )


def _plan_of(cluster: Cluster) -> Plan:
    plan = cluster.plan
    assert plan is not None
    return plan


def _evenly(plan: Plan) -> Sequence[tuple[str, StageRange]]:
    """As many layers on each of the same nodes, in the same order."""
    stages = plan.replicas[0].stages
    num_layers = stages[-1].layers.end
    ranges = even_split(num_layers, tuple(range(1, num_layers)), len(stages))
    return [(stage.node, layers) for stage, layers in zip(stages, ranges, strict=True)]


def _lines(plan: Plan) -> list[str]:
    return [f"{stage.node}: layers {stage.layers}" for stage in plan.replicas[0].stages]


def _run(cluster: Cluster, num_steps: int) -> Run:
    source = random.Random(1)
    prompts = [random_prompt(source, PROMPT_TOKENS, VOCABULARY) for _ in range(NUM_STREAMS)]
    with running(cluster, prompts) as streams:
        cluster.reset_statistics()
        speed = streams.tokens_per_s(streams.run(num_steps))
        statistics = cluster.statistics()
    stage_ms = [stage.compute_us / statistics.num_steps / 1e3 for stage in statistics.stages]
    note(f"{speed:.1f} tokens/s, stages {', '.join(f'{ms:.1f}' for ms in stage_ms)} ms")
    return Run(speed, stage_ms)


def main() -> int:
    """Reads a `Task`, prints `Found`, both as JSON."""
    task = Task(**json.loads(sys.argv[1]))
    assert Path(task.model).is_dir()
    print(json.dumps(asdict(measure(task))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
