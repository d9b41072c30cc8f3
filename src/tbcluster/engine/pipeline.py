"""The coordinator's end of the pipeline: numbers micro-batches, sends them in, takes results out.

The pipeline is a log: everything that changes a stage's caches travels inside numbered steps, in
one order, through every stage. An epoch fences off steps from before a change.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from tbcluster.core import MicroBatch, StepResult
from tbcluster.errors import WireError
from tbcluster.transport.channel import Receiver, Sender
from tbcluster.wire.messages import Result, Step, decode_result, encode_step
from tbcluster.wire.operations import CacheOperation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _InFlight:
    micro_batch: MicroBatch | None
    submitted_at: float


class Pipeline:
    """`submit` and `collect` are separate, so that many micro-batches are on their way at once.

    Args:
        sender: To stage 0.
        receiver: From the last stage.
    """

    def __init__(
        self,
        sender: Sender,
        receiver: Receiver,
        epoch: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self._clock = clock
        self._epoch = epoch
        self._next_step_id = 0
        self._in_flight: dict[int, _InFlight] = {}
        self.num_dropped_messages = 0

    def submit(
        self, micro_batch: MicroBatch | None, operations: tuple[CacheOperation, ...] = ()
    ) -> int:
        """Send a micro-batch (None: cache operations alone) on its way and return its step id. The
        stages apply the operations first."""
        step_id = self._next_step_id
        self._next_step_id += 1
        self._in_flight[step_id] = _InFlight(micro_batch, self._clock())
        self._sender.send(encode_step(Step(self._epoch, step_id, operations, micro_batch)))
        return step_id

    def collect(self, timeout_s: float | None) -> StepResult | None:
        """The next result, or None when the time is up or someone called `wake`."""
        frames = self._receiver.receive(timeout_s)
        if frames is None:
            return None
        try:
            result = decode_result(frames)
        except WireError as error:
            self._drop(str(error))
            return None
        if result.epoch != self._epoch or result.step_id not in self._in_flight:
            self._drop(f"step {result.step_id} of epoch {result.epoch} is not in flight")
            return None
        return self._complete(result)

    def wake(self) -> None:
        """Make `collect` return. Thread-safe."""
        self._receiver.wake()

    def forget(self) -> None:
        """Give up what is in flight; its results are dropped should they still come."""
        self._in_flight.clear()

    def begin_epoch(self, epoch: int) -> None:
        """Forget everything in flight; stages drop their caches when they see the new number."""
        self.forget()
        self._epoch = epoch

    def _complete(self, result: Result) -> StepResult:
        was = self._in_flight.pop(result.step_id)
        return StepResult(
            step_id=result.step_id,
            micro_batch=was.micro_batch,
            sampled=result.sampled,
            error=result.error,
            timings=result.timings,
            round_trip_us=round((self._clock() - was.submitted_at) * 1e6),
            vector=result.vector,
        )

    def _drop(self, reason: str) -> None:
        self.num_dropped_messages += 1
        logger.info("dropped a message from the last stage: %s", reason)
