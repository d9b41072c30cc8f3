"""What a hop between two processes costs, beside what pyzmq alone takes for the same bytes.

A hop is one message: a decode step through N stages makes N + 1 of them, from the coordinator to
the first stage, from stage to stage, and from the last one back.
"""

import json
import statistics
from pathlib import Path

from benchmarks.harness import interleaved_pairs
from benchmarks.local_pipeline import GREEDY, LANE_ID, LocalPipeline, token_of
from benchmarks.relay import RelayRing, Sizes
from tbcluster.core import MicroBatch, Sample, SampledToken, StepResult, VisitTiming
from tbcluster.wire.messages import Boundary, Result, Step, encode_result, encode_step
from tbcluster.wire.tensors import Buffer, Tensor, TensorSpec

NUM_PAIRS = 9
STEPS_PER_ROUND = 60
PROMPT = tuple(range(16, 32))
SOME_US = 1234  # a time of typical length in a header


def measure_hops(model_path: Path, num_stages: int) -> list[tuple[float, float]]:
    """Pairs of (through stages, through relays that only pass messages on), in microseconds."""
    hops = message_sizes(model_path, num_stages)
    with LocalPipeline(model_path, num_stages) as stages, RelayRing(hops) as relays:
        return interleaved_pairs(lambda: _stage_hop(stages), lambda: _relay_hop(relays), NUM_PAIRS)


def hop_us(result: StepResult) -> float:
    """The part of a step's round trip that no stage computed in, per hop."""
    num_hops = len(result.timings) + 1
    compute_us = sum(timing.compute_us for timing in result.timings)
    return (result.round_trip_us - compute_us) / num_hops


def message_sizes(model_path: Path, num_stages: int) -> list[Sizes]:
    """Frame sizes of the messages of one decode step, hop by hop."""
    config = json.loads((model_path / "config.json").read_text(encoding="utf-8"))
    return [
        *(
            _sizes(encode_step(_step(visited, config["hidden_size"])))
            for visited in range(num_stages)
        ),
        _sizes(encode_result(_result(num_stages))),
    ]


def _step(num_visited: int, hidden_size: int) -> Step:
    spec = TensorSpec("float32", (1, 1, hidden_size))
    tensor = Tensor(spec, bytes(spec.num_bytes()))
    hidden = Boundary(["tuple", [["array", 0], ["list", []]]], [tensor])
    return Step(
        epoch=1,
        step_id=SOME_US,
        micro_batch=MicroBatch(LANE_ID, (SOME_US,), (Sample(GREEDY, SOME_US),)),
        boundary=hidden if num_visited else None,
        timings=_timings(num_visited),
    )


def _result(num_stages: int) -> Result:
    return Result(1, SOME_US, (SampledToken(SOME_US),), None, _timings(num_stages))


def _timings(num_visited: int) -> tuple[VisitTiming, ...]:
    return (VisitTiming(SOME_US, SOME_US),) * num_visited


def _sizes(frames: list[Buffer]) -> Sizes:
    return [memoryview(frame).nbytes for frame in frames]


def _stage_hop(stages: LocalPipeline) -> float:
    token = stages.begin(PROMPT)
    times = []
    for _ in range(STEPS_PER_ROUND):
        result = stages.decode(token)
        token = token_of(result)
        times.append(hop_us(result))
    return statistics.median(times)


def _relay_hop(relays: RelayRing) -> float:
    return statistics.median(relays.hop_us() for _ in range(STEPS_PER_ROUND))
