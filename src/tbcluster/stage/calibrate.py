"""`python -m tbcluster.stage.calibrate`: measures how fast this machine computes, and says so.

A process of its own: it meets the limits that the stages on this machine meet.
"""

import itertools
import logging
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from tbcluster.core import MicroBatch, Sample, SamplingParams
from tbcluster.errors import StageError, TbclusterError
from tbcluster.model.device import Device, prepare_device
from tbcluster.model.slicing import StageModel
from tbcluster.model.speed import (
    NUM_SAMPLES,
    SAMPLE_S,
    Clock,
    byte_rates,
    cache_rate,
    clock_of,
    toy_stage,
)
from tbcluster.stage.beats import Work
from tbcluster.stage.cache_store import CacheStore
from tbcluster.stage.executor import StageExecutor
from tbcluster.stage.orders import Outbound
from tbcluster.stage.parent import follow_parent, meet_parent, read_spec
from tbcluster.stage.steps import run_steps
from tbcluster.transport.channel import Receiver, Sender
from tbcluster.transport.zeromq import ZmqReceiver, ZmqSender
from tbcluster.wire.control import Failed, Route
from tbcluster.wire.errands import Calibrated, CalibrateSpec, MeasuredSpeed
from tbcluster.wire.messages import Step, decode_step, encode_step
from tbcluster.wire.operations import NewCache
from tbcluster.wire.tensors import Buffer

# The time of a step is its layers' and the stage's own: two lengths tell them apart.
FEW_LAYERS, MANY_LAYERS = 2, 10
# As many as keep a stage busy.
LANES = (1, 2)
PROMPT = tuple(range(16))
# Steps before those that count: the prompts, and one of each lane.
NUM_WARM_UP = 2 * len(LANES)


class _DoneError(Exception):
    """Leaves the worker's loop."""


class NextStage:
    """Stands for the stage after the one that is measured, and for the coordinator: whatever
    arrives is followed by the next step of its lane.

    Args:
        onward, arriving: The ends of the connection to here.
        back: Where the measured stage receives.
    """

    def __init__(self, onward: Sender, arriving: Receiver, back: Sender, clock: Clock) -> None:
        self._onward = onward
        self._arriving = arriving
        self._back = back
        self._clock = clock
        self._step_ids = itertools.count()
        self._num_done = 0
        self._started = 0.0
        self.step_s = 0.0
        for lane in LANES:
            self._next(MicroBatch(lane, PROMPT), NewCache(lane))

    def send(self, frames: Sequence[Buffer]) -> None:
        """Raises: StageError when the step failed; _DoneError when `step_s` is known."""
        self._onward.send(frames)
        # Nothing piles up; whether it is this step already does not matter.
        self._arriving.receive(0)
        step = decode_step(list(frames))
        if step.error is not None or step.micro_batch is None:
            raise StageError(f"a step of the calibration failed: {step.error}")
        self._count()
        batch = MicroBatch(step.micro_batch.cache_id, (1,), (Sample(SamplingParams(), 0),))
        self._next(batch)

    def close(self) -> None:
        """Its connections are others' to close."""

    def _count(self) -> None:
        self._num_done += 1
        num_counted = self._num_done - NUM_WARM_UP
        if num_counted == 0:
            self._started = self._clock()
        elapsed_s = self._clock() - self._started
        if num_counted > 0 and elapsed_s > SAMPLE_S:
            self.step_s = elapsed_s / num_counted
            raise _DoneError

    def _next(self, batch: MicroBatch, *operations: NewCache) -> None:
        self._back.send(encode_step(Step(0, next(self._step_ids), operations, batch)))


def step_s(model: StageModel, clock: Clock) -> float:
    """What one decode step takes of a stage that always has the next one there: the worker's own
    loop, over the kind of connection that it has."""
    return min(_sampled_step_s(model, clock) for _ in range(NUM_SAMPLES))


def _sampled_step_s(model: StageModel, clock: Clock) -> float:
    with tempfile.TemporaryDirectory(prefix="tbc-") as folder:
        inward, outward = (Route(f"ipc://{Path(folder) / name}") for name in ("in", "out"))
        with (
            closing(ZmqReceiver(inward.endpoint)) as receiver,
            closing(ZmqReceiver(outward.endpoint)) as arriving,
            closing(ZmqSender(inward)) as back,
            closing(ZmqSender(outward)) as onward,
        ):
            executor = StageExecutor(model, CacheStore(model.make_cache, None), 0, 2, epoch=0)
            next_stage = NextStage(onward, arriving, back, clock)
            with suppress(_DoneError):
                run_steps(executor, receiver, Outbound(next_stage, next_stage), 0, Work())
    return next_stage.step_s


def calibrate(spec: CalibrateSpec, device: Device) -> Calibrated:
    """Measure.

    Raises:
        StageError: A kind of weights is not known.
    """
    rates = {kind: byte_rates(kind, device) for kind in spec.kinds}
    cache_s_per_byte = cache_rate(device)
    clock = clock_of(device)
    few, layer_bytes = toy_stage(FEW_LAYERS, device)
    many, _ = toy_stage(MANY_LAYERS, device)
    few_s, many_s = step_s(few, clock), step_s(many, clock)
    layer_s = max(0.0, (many_s - few_s) / (MANY_LAYERS - FEW_LAYERS))
    stage_s = max(0.0, few_s - FEW_LAYERS * layer_s)
    return Calibrated(
        tuple(
            MeasuredSpeed(
                kind,
                of_kind,
                max(0.0, layer_s - layer_bytes * of_kind[0][1]),
                stage_s,
                cache_s_per_byte,
            )
            for kind, of_kind in rates.items()
        )
    )


def main() -> int:
    """Reads a `CalibrateSpec`, reports `Calibrated`; ends when standard input does."""
    stdin, report = meet_parent()
    logging.basicConfig(
        format="tbcluster calibrate: %(levelname)s %(message)s", level=logging.WARNING
    )
    spec = read_spec(stdin, CalibrateSpec)
    follow_parent(stdin, None)
    try:
        report(calibrate(spec, prepare_device()))
    except (TbclusterError, OSError, RuntimeError, MemoryError) as error:
        report(Failed(type(error).__name__, str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
