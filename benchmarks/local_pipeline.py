"""Real stage workers driven directly, without an engine: one step in, its result out."""

import json
from pathlib import Path
from typing import Self

from tbcluster.cluster.places import LocalPlaces
from tbcluster.cluster.stage_status import StageStatus
from tbcluster.cluster.stage_work import StageWork
from tbcluster.cluster.stages import StageSet
from tbcluster.core import MicroBatch, Sample, SamplingParams, StageRange, StepResult
from tbcluster.engine.pipeline import Pipeline
from tbcluster.planner.partition import even_split
from tbcluster.transport.zeromq import RoutedSender, ZmqReceiver
from tbcluster.wire.operations import CacheOperation, DropCache, JoinLane, NewCache

GREEDY = SamplingParams()
CACHE_ID, LANE_ID = 0, 1


class OneSequence:
    """A sequence in a pipeline, driven step by step."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._num_tokens = 0

    def begin(self, prompt: tuple[int, ...]) -> int:
        """Start a new sequence and return its first token; there must be two prompt tokens."""
        self._num_tokens = len(prompt)
        self._run(MicroBatch(CACHE_ID, prompt[:-1]), DropCache(LANE_ID), NewCache(CACHE_ID))
        return token_of(self._decode(prompt[-1], JoinLane(LANE_ID, (CACHE_ID,))))

    def decode(self, token: int) -> StepResult:
        """One more step of the sequence."""
        self._num_tokens += 1
        return self._decode(token)

    def _decode(self, token: int, *operations: CacheOperation) -> StepResult:
        sample = Sample(GREEDY, self._num_tokens)
        return self._run(MicroBatch(LANE_ID, (token,), (sample,)), *operations)

    def _run(self, micro_batch: MicroBatch, *operations: CacheOperation) -> StepResult:
        self._pipeline.submit(micro_batch, operations)
        while (result := self._pipeline.collect(None)) is None:
            continue
        assert result.error is None, result.error
        return result


class LocalPipeline(OneSequence):
    """Stages of a llama model on this machine with one sequence in them, as a context manager."""

    def __init__(self, model_path: Path, num_stages: int) -> None:
        self._places = LocalPlaces()
        self._receiver = ZmqReceiver(self._places.results)
        self._sender = RoutedSender()
        work = StageWork([str(model_path)] * num_stages, stage_ranges(model_path, num_stages))
        self._stages = StageSet(work, self._places, self._sender, self._receiver.port)
        super().__init__(Pipeline(self._sender, self._receiver))

    @property
    def statuses(self) -> list[StageStatus]:
        """What the stages reported when they were loaded."""
        return self._stages.statuses

    def __enter__(self) -> Self:
        for stage in range(len(self._stages.statuses)):
            self._stages.start(stage, epoch=1)
        self._stages.await_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self._stages.close()
        self._sender.close()
        self._receiver.close()
        self._places.close()


def stage_ranges(model_path: Path, num_stages: int) -> list[StageRange]:
    """An even split; a llama model may be cut before any layer."""
    config = json.loads((model_path / "config.json").read_text(encoding="utf-8"))
    num_layers = config["num_hidden_layers"]
    return even_split(num_layers, tuple(range(1, num_layers)), num_stages)


def token_of(result: StepResult) -> int:
    """The token that a decode step picked."""
    (sampled,) = result.sampled
    return sampled.token
