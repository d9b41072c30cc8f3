"""The newest steps and sequences of an engine: what a trace is made of.

Bounded: about a kilobyte a step with 4 stages and 16 rows, so some 10 MB; no tokens and no text.
The engine's thread writes, which must cost next to nothing; any other may read.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass

from tbcluster.core import StepResult
from tbcluster.engine.sequence import Sequence
from tbcluster.tracing.clocks import BUCKET_S
from tbcluster.tracing.records import EngineTrace, SequenceRecord, StepRecord
from tbcluster.tracing.ways import WayCount

MAX_STEPS = 8192
MAX_SEQUENCES = 1024
# Of a sequence that is preempted again and again.
MAX_STARTS = 64

# How a sequence stands (see `tracing.trace.SequenceTrace`); one that moved goes on elsewhere.
RUNNING = "running"
STOP = "stop"
CANCELLED = "cancelled"
ERROR = "error"
MOVED = "moved"


@dataclass(slots=True)
class _Entry:
    """A sequence; `record` is what stays of it."""

    submitted_at: float
    started_at: tuple[float, ...] = ()
    sequence: Sequence | None = None
    record: SequenceRecord | None = None


class StepLog:
    """Notes every step as it comes back, and what becomes of sequences.

    Attributes:
        is_on: Whether anything is noted.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.is_on = True
        self._clock = clock
        self._lock = threading.Lock()
        self._steps: deque[StepRecord] = deque(maxlen=MAX_STEPS)
        self._num_steps = 0
        self._epoch = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        # Of readers among themselves: the engine never waits for their arithmetic.
        self._counting = threading.Lock()
        self._ways = WayCount(0)
        self._num_counted = 0

    # In the engine's thread

    def submitted(self, sequence: Sequence) -> None:
        """A sequence waits. Embeddings are not traced: they come by thousands, and would push out
        what is looked for."""
        if self.is_on and not sequence.is_probe and sequence.embedding is None:
            entry = _Entry(self._clock(), sequence=sequence)
            with self._lock:
                self._entries[sequence.request.request_id] = entry
                if len(self._entries) > MAX_SEQUENCES:
                    self._forget_one()

    def started(self, sequence: Sequence) -> None:
        """It has been given a cache."""
        entry = self._entries.get(sequence.request.request_id)
        if entry is not None:
            entry.started_at = (*entry.started_at, self._clock())[-MAX_STARTS:]

    def ended(self, sequence: Sequence, outcome: str) -> None:
        """It takes part no more."""
        entry = self._entries.get(sequence.request.request_id)
        if entry is not None and entry.record is None:
            entry.record = _record_of(sequence, entry, outcome, self._clock())
            # Its tokens are nobody's business any more.
            entry.sequence = None

    def turned_away(self, sequence: Sequence, outcome: str) -> None:
        """It came from another engine, and ended at once."""
        self.submitted(sequence)
        self.ended(sequence, outcome)

    def begin_epoch(self, epoch: int) -> None:
        """Steps go to stages that may be on other machines."""
        self._epoch = epoch

    def step(self, result: StepResult, rows: Rows[Sequence | None], num_stages: int) -> None:
        """A step came back from so many stages, whose rows these were."""
        batch = result.micro_batch
        if not self.is_on or batch is None:
            return
        ids = tuple(["" if row is None else row.request.request_id for row in rows])
        record = StepRecord(
            result.step_id,
            self._epoch,
            num_stages,
            result.back_at - result.round_trip_us / 1e6,
            result.back_at,
            batch.is_prompt,
            len(batch.tokens) if batch.is_prompt else batch.num_rows,
            ids,
            result.timings,
            result.error,
        )
        with self._lock:
            self._steps.append(record)
            self._num_steps += 1

    def _forget_one(self) -> None:
        """The oldest that has ended; a request that runs for hours is still told of."""
        for request_id, entry in self._entries.items():
            if entry.sequence is None:
                del self._entries[request_id]
                return
        self._entries.popitem(last=False)

    # In any thread

    def trace(self, request_id: str, *, with_steps: bool = True) -> EngineTrace | None:
        """What is known of a sequence; None where nothing is."""
        with self._lock:
            entry = self._entries.get(request_id)
            steps = tuple(self._steps) if with_steps else ()
        record = self._record(entry) if entry is not None else None
        if record is None:
            return None
        until = self._clock() if record.ended_at is None else record.ended_at
        since = record.submitted_at - BUCKET_S
        return EngineTrace(
            record,
            tuple(step for step in steps if request_id in step.request_ids),
            tuple(step for step in steps if since <= step.sent_at <= until + BUCKET_S),
        )

    def _record(self, entry: _Entry) -> SequenceRecord | None:
        sequence = entry.sequence
        if sequence is not None:
            running = _record_of(sequence, entry, RUNNING, None)
            # It may have ended meanwhile.
            return entry.record or running
        return entry.record

    def wire_us(self, num_stages: int) -> tuple[int, ...]:
        """How long steps were on their way to each stage, in microseconds, since the last reset;
        looked at so seldom that steps were forgotten meanwhile, those are left out."""
        with self._counting:
            with self._lock:
                num_new = min(self._num_steps - self._num_counted, len(self._steps))
                new = list(self._steps)[len(self._steps) - num_new :]
                self._num_counted = self._num_steps
            if len(self._ways.wire_us) != num_stages:
                self._ways = WayCount(num_stages)
            self._ways.add(new)
            return tuple(self._ways.wire_us)

    def reset(self) -> None:
        """Count the ways from zero again."""
        with self._counting, self._lock:
            self._num_counted = self._num_steps
            self._ways = WayCount(0)


def _record_of(
    sequence: Sequence, entry: _Entry, outcome: str, ended_at: float | None
) -> SequenceRecord:
    return SequenceRecord(
        request_id=sequence.request.request_id,
        num_prompt_tokens=len(sequence.request.prompt),
        num_cached_tokens=sequence.num_cached_tokens,
        num_generated_tokens=sequence.num_generated,
        num_steps=sequence.num_steps,
        outcome=outcome,
        submitted_at=entry.submitted_at,
        started_at=entry.started_at,
        first_token_at=sequence.first_token_at or None,
        ended_at=ended_at,
    )
