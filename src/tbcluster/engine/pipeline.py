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

# After so long without a result, with steps on their way, an empty one is sent after them: should
# they be lost, its result says so.
QUIET_S = 3.0


@dataclass(frozen=True, slots=True)
class _InFlight:
    micro_batch: MicroBatch | None
    submitted_at: float


class Pipeline:
    """`submit` and `collect` are separate, so that many micro-batches are on their way at once.

    Args:
        sender: To stage 0.
        receiver: From the last stage.
        on_gap: Called, once in each epoch, with the number of a step that was lost: its message is
            nowhere, or whoever has it does not go on. No result counts from then on until the next
            epoch, since it may lack that step. None where nobody could do anything about it.
        is_looped: Whether steps pass through the stages more than once. Those that fail, or carry
            no micro-batch, come back after their first pass, before others that are older.
        deadline_s: The oldest step in flight counts as lost once it is older than this, if nothing
            has come back for as long either; 0 for never.
    """

    def __init__(
        self,
        sender: Sender,
        receiver: Receiver,
        epoch: int = 1,
        clock: Callable[[], float] = time.monotonic,
        on_gap: Callable[[int], None] | None = None,
        *,
        is_looped: bool = False,
        deadline_s: float = 0.0,
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self._clock = clock
        self._epoch = epoch
        self._next_step_id = 0
        self._in_flight: dict[int, _InFlight] = {}
        self._on_gap = on_gap
        self._is_looped = is_looped
        self._deadline_s = deadline_s
        self._has_gap = False
        # When something came or was asked for; when a step came back.
        self._moved_at = self._came_back_at = clock()
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
        """The next result, or None when the time is up, someone called `wake`, or it has been quiet
        for long."""
        frames = self._receiver.receive(self._patience_s(timeout_s))
        if frames is None:
            self._watch()
            return None
        self._moved_at = self._clock()
        try:
            result = decode_result(frames)
        except WireError as error:
            self._drop(str(error))
            return None
        if result.epoch != self._epoch or result.step_id not in self._in_flight:
            self._drop(f"step {result.step_id} of epoch {result.epoch} is not in flight")
            return None
        self._look_for_gap(result)
        if self._has_gap:
            self._drop(f"step {result.step_id} comes after one that was lost")
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
        self._has_gap = False
        self._moved_at = self._clock()

    def _patience_s(self, timeout_s: float | None) -> float | None:
        if not self._is_watching or timeout_s == 0:
            return timeout_s
        most = QUIET_S
        if self._deadline_s:
            most = min(most, max(0.0, self._due_at - self._clock()))
        return most if timeout_s is None else min(timeout_s, most)

    @property
    def _is_watching(self) -> bool:
        return self._on_gap is not None and bool(self._in_flight) and not self._has_gap

    @property
    def _due_at(self) -> float:
        """When the oldest step in flight counts as lost."""
        oldest = next(iter(self._in_flight.values()))
        return max(oldest.submitted_at, self._came_back_at) + self._deadline_s

    def _watch(self) -> None:
        """Nothing comes: a step is overdue, or it is time to send an empty one after those that are
        on their way."""
        if not self._is_watching:
            return
        now = self._clock()
        if self._deadline_s and now >= self._due_at:
            self._lose(next(iter(self._in_flight)))
        elif not self._is_looped and now - self._moved_at >= QUIET_S:
            self._moved_at = now
            self.submit(None)

    def _look_for_gap(self, result: Result) -> None:
        """Older steps must have come back before this one."""
        oldest = next(iter(self._in_flight))
        if self._on_gap is None or oldest == result.step_id:
            return
        is_empty = self._in_flight[result.step_id].micro_batch is None
        may_overtake = self._is_looped and (is_empty or result.error is not None)
        if not may_overtake:
            self._lose(oldest)

    def _lose(self, step_id: int) -> None:
        if not self._has_gap and self._on_gap is not None:
            self._has_gap = True
            logger.warning("step %d was lost on its way", step_id)
            self._on_gap(step_id)

    def _complete(self, result: Result) -> StepResult:
        was = self._in_flight.pop(result.step_id)
        self._came_back_at = self._clock()
        return StepResult(
            step_id=result.step_id,
            micro_batch=was.micro_batch,
            sampled=result.sampled,
            error=result.error,
            timings=result.timings,
            round_trip_us=round((self._came_back_at - was.submitted_at) * 1e6),
            vector=result.vector,
            digests=result.digests,
            back_at=self._came_back_at,
        )

    def _drop(self, reason: str) -> None:
        self.num_dropped_messages += 1
        self._watch()
        logger.info("dropped a message from the last stage: %s", reason)
