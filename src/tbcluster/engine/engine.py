"""The token loop. One thread runs it; the public methods may be called from any other."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from tbcluster.core import Request, SampledToken, StepResult
from tbcluster.engine.admission import Admission
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.detokenizer import Detokenizer, TextStream, behind_prompt
from tbcluster.engine.emission import Emitter, tell
from tbcluster.engine.limits import Limits, validate
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.prefix_disk import PrefixDisk
from tbcluster.engine.scheduler import Scheduler
from tbcluster.engine.sequence import Listener, Sequence
from tbcluster.engine.statistics import Counters, EngineStatistics
from tbcluster.errors import (
    ClusterClosedError,
    QueueFullError,
    RequestError,
    StageError,
    StageLostError,
    TbclusterError,
)

logger = logging.getLogger(__name__)

# A step that fails takes all its rows with it: each may try once more.
MAX_FAILURES = 1


class Engine:
    """Turns requests into outputs by way of the pipeline.

    Args:
        disk: Where known prefixes are kept beyond memory, if anywhere.
        on_failure: Called, in the engine's thread, when its loop has failed for good.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Scheduler,
        caches: CacheBook,
        new_detokenizer: Callable[[], Detokenizer],
        limits: Limits,
        disk: PrefixDisk | None = None,
        on_failure: Callable[[TbclusterError], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._caches = caches
        self._new_detokenizer = new_detokenizer
        self._limits = limits
        self._disk = disk
        self._on_failure = on_failure
        self._clock = clock
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._num_open = 0
        self._open_lock = threading.Lock()
        self._admission = Admission(scheduler, caches)
        self._running: dict[int, Sequence] = {}
        self._emitter = Emitter(self._end, clock)
        self._counters = Counters(caches.num_stages)
        self._num_arrivals = 0
        self._is_held = True
        self._is_stopped = False
        self._closed_by: TbclusterError | None = None

    # Any thread

    def submit(self, request: Request, listener: Listener, *, while_held: bool = False) -> None:
        """Queue a request; `listener` is told of every token, in the engine's thread.

        Args:
            while_held: Run it even though ordinary requests are held back and their queue is full
                (the parity probe).

        Raises:
            RequestError: A field is out of range (named by `param`).
            QueueFullError: Too many requests are open already.
            TbclusterError: What `close` was called with.
        """
        validate(request, self._limits)
        with self._open_lock:
            # Under the lock that `_close` takes: whatever gets past here is answered.
            if self._closed_by is not None:
                # Without the traceback that earlier raises have hung on it.
                raise self._closed_by.with_traceback(None)
            if (
                not while_held
                and self._num_open >= self._limits.max_running + self._limits.max_waiting
            ):
                raise QueueFullError(f"{self._num_open} requests are open already: try again later")
            self._num_open += 1
            self._post(lambda: self._enqueue(request, listener, while_held))

    def cancel(self, request_id: str) -> None:
        """End a request without telling its listener; unknown ids are ignored."""
        self._post(lambda: self._cancel(request_id))

    def hold(self) -> None:
        """Let requests wait instead of starting them."""
        self._post(lambda: self._set_held(True))

    def open(self) -> None:
        """Start requests as they come."""
        self._post(lambda: self._set_held(False))

    def fail_running(self, error: TbclusterError) -> None:
        """A stage lost its caches: running sequences end with `error`, waiting requests wait."""
        self._post(lambda: self._fail_running(error))

    def begin_epoch(self, epoch: int) -> None:
        """From now on steps carry this number; stages that see it drop all their caches, so that
        sequences that are still running end with StageLostError. The others wait for `open`."""
        self._post(lambda: self._begin_epoch(epoch))

    def close(self, error: TbclusterError) -> None:
        """End every request, running, waiting or yet to come, with `error`."""
        self._post(lambda: self._close(error))

    def stop(self) -> None:
        """Leave `run`; open requests end with ClusterClosedError."""
        self._post(self._stop)

    def reset_statistics(self) -> None:
        """Count from zero again."""
        self._post(self._reset_statistics)

    def num_known(self, request: Request) -> int:
        """How many of a request's tokens a known prefix would spare now."""
        return self._caches.num_known(request.prompt) if request.cache_prompt else 0

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return self._num_open

    @property
    def statistics(self) -> EngineStatistics:
        """What was counted since the last reset; a number or two may be of the turn before."""
        memory = self._caches.memory
        num_prefixes = len(self._caches.prefixes)
        queues = (len(self._running), len(self._admission))
        return self._counters.snapshot(num_prefixes, memory.used, memory.budgets, *queues)

    # The engine's thread

    def run(self) -> None:
        """Loop until `stop`."""
        try:
            while not self._is_stopped:
                self.step()
        except Exception as error:  # the top loop: nothing may hang because it ended
            logger.exception("the engine's loop failed")
            self._is_stopped = True
            failure = StageError(f"the engine failed: {type(error).__name__}: {error}")
            self._close(failure)
            self._on_failure(failure)
        self._take_inbox()

    def step(self, timeout_s: float | None = None) -> None:
        """One turn. Text is made while the stages compute the next tokens."""
        started = self._clock()
        self._take_inbox()
        if self._is_stopped:
            return
        if not self._is_held:
            self._admission.admit(self._start, self._limits.max_running - len(self._running))
        self._schedule()
        self._emitter.emit()
        asked = self._clock()
        result = self._pipeline.collect(timeout_s)
        answered = self._clock()
        while result is not None:
            self._update(result)
            result = self._pipeline.collect(0)
        self._counters.own_s += asked - started + self._clock() - answered

    def _start(self, sequence: Sequence) -> bool:
        """Give a sequence a cache and let it take part; False when there is no room."""
        started = self._caches.start(
            sequence.tokens,
            uses_prefixes=sequence.uses_prefixes,
            num_new=0 if sequence.embedding is not None else 1,
        )
        if started is None:
            return False
        if sequence.text is None:
            sequence.text = self._new_text(sequence.request)
            sequence.started_at = self._clock()
            self._counters.num_prompt_tokens += len(sequence.request.prompt)
        if sequence.num_generated == 0:
            self._counters.num_cached_tokens += started.num_tokens - sequence.num_cached_tokens
            sequence.num_cached_tokens = started.num_tokens
        sequence.cache_id, sequence.num_scheduled = started.cache_id, started.num_tokens
        if started.prefix is not None and not started.prefix.is_proven:
            sequence.started_from = started.prefix
        self._running[sequence.arrival] = sequence
        self._scheduler.add(sequence)
        return True

    def _new_text(self, request: Request) -> TextStream:
        if request.keeps_first_blank:
            return TextStream(behind_prompt(self._new_detokenizer, request.prompt), request.stop)
        return TextStream(self._new_detokenizer(), request.stop)

    def _schedule(self) -> None:
        while misled := self._scheduler.take_misled():
            for sequence in misled:
                # Starting over may mislead others in turn, and take one out twice.
                if sequence.started_from is not None:
                    self._start_over(sequence)
        while micro_batch := self._scheduler.schedule():
            self._pipeline.submit(micro_batch, self._caches.take_operations())
        if operations := self._caches.take_operations():
            self._pipeline.submit(None, operations)
        self._take_back_preempted()
        if self._disk is not None:
            self._save_prefixes(self._disk)

    def _save_prefixes(self, disk: PrefixDisk) -> None:
        disk.forget(self._caches.take_forgotten())
        is_idle = not self._running and not self._is_held
        if is_idle and (operations := disk.next_operations()):
            disk.sent(self._pipeline.submit(None, operations), operations)

    def _take_back_preempted(self) -> None:
        for sequence in self._scheduler.take_preempted():
            del self._running[sequence.arrival]
            self._admission.add(sequence)
            self._counters.num_preemptions += 1

    def _update(self, result: StepResult) -> None:
        self._counters.count_step(result)
        if self._disk is not None:
            self._disk.completed(result.step_id, result.error)
        if result.micro_batch is None:
            if result.error is not None:
                logger.warning("cache operations failed: %s", result.error)
            return
        batch, error = result.micro_batch, result.error
        if error is None and len(result.sampled) != len(batch.samples):
            error = f"{len(result.sampled)} tokens came for {len(batch.samples)} rows"
        if error is None and (result.vector is None) != (batch.pooling is None):
            error = "a vector came that nobody asked for" if result.vector else "no vector came"
        sequences = self._scheduler.completed(batch, result.timings, failed=error is not None)
        if error is not None:
            for sequence in sequences:
                self._fail(sequence, error)
            return
        for sequence, sampled in zip(sequences, result.sampled, strict=False):
            if sequence is not None:
                self._append(sequence, sampled)
        if result.vector is not None:
            self._pool(sequences[0], len(batch.tokens), result.vector)

    def _pool(self, sequence: Sequence | None, num_tokens: int, vector: bytes) -> None:
        """A chunk's part of an embedding has come, perhaps the last one."""
        if sequence is None or sequence.embedding is None:
            return
        try:
            sequence.embedding.add(vector, num_tokens)
            if sequence.num_prefill > 0 or sequence.num_in_flight > 0:
                return
            output = sequence.embedding_output(sequence.embedding.result(), self._clock())
        except StageError as error:
            self._end(sequence)
            tell(sequence.listener, error)
            return
        self._end(sequence)
        tell(sequence.listener, output)

    def _fail(self, sequence: Sequence | None, reason: str) -> None:
        if sequence is None:
            return
        sequence.num_failures += 1
        if sequence.num_failures > MAX_FAILURES:
            self._end(sequence, keeps_prefix=False)
            tell(sequence.listener, StageError(reason))
            return
        logger.warning("a step failed, its requests are computed again: %s", reason)
        self._start_over(sequence)

    def _start_over(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        del self._running[sequence.arrival]
        sequence.start_over()
        self._admission.add(sequence)

    def _append(self, sequence: Sequence, sampled: SampledToken) -> None:
        if sampled.error is not None:
            self._end(sequence)
            # Its own grammar is at fault, which the client chose.
            tell(sequence.listener, RequestError(sampled.error))
            return
        if sequence.num_generated == 0:
            sequence.first_token_at = self._clock()
        sequence.tokens.append(sampled.token)
        self._counters.num_generated_tokens += 1
        finish = sequence.finish_reason_after(sampled.token)
        self._emitter.add(sequence, sampled, finish)
        if finish is not None:
            self._end(sequence)

    def _end(self, sequence: Sequence, *, keeps_prefix: bool = True) -> None:
        """Free a sequence's row or cache on all stages; later results of it are ignored."""
        if self._running.pop(sequence.arrival, None) is not None:
            keeps_prefix = keeps_prefix and sequence.leaves_prefixes
            self._scheduler.remove(sequence, keeps_prefix=keeps_prefix)
            self._close_one()
        elif self._admission.discard(sequence):
            self._close_one()

    # What other threads asked for

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.put(action)
        self._pipeline.wake()

    def _take_inbox(self) -> None:
        while True:
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                return
            action()

    def _enqueue(self, request: Request, listener: Listener, while_held: bool) -> None:
        if self._closed_by is not None:
            self._close_one()
            tell(listener, self._closed_by)
            return
        sequence = Sequence(request, listener, self._num_arrivals)
        self._num_arrivals += 1
        if not (while_held and self._start(sequence)):
            self._admission.add(sequence)

    def _cancel(self, request_id: str) -> None:
        for sequence in [*self._running.values(), *self._admission]:
            if sequence.request.request_id == request_id:
                self._end(sequence)
        self._emitter.discard(request_id)

    def _set_held(self, is_held: bool) -> None:
        self._is_held = is_held

    def _reset_statistics(self) -> None:
        self._counters = Counters(self._caches.num_stages)

    def _fail_running(self, error: TbclusterError) -> None:
        self._emitter.emit()
        ended = list(self._running.values())
        self._running.clear()
        self._scheduler.reset()
        self._caches.clear()
        self._pipeline.forget()
        if self._disk is not None:
            self._disk.clear()
        for sequence in ended:
            self._close_one()
            tell(sequence.listener, error)

    def _begin_epoch(self, epoch: int) -> None:
        # As `hold` and `fail_running`, once more: the loss may have come just before an `open`.
        self._set_held(True)
        self._fail_running(StageLostError("the stages were started again: send the request again"))
        self._pipeline.begin_epoch(epoch)

    def _close(self, error: TbclusterError) -> None:
        with self._open_lock:
            self._closed_by = error
        self._fail_running(error)
        for sequence in self._admission:
            self._admission.discard(sequence)
            self._close_one()
            tell(sequence.listener, error)

    def _stop(self) -> None:
        self._is_stopped = True
        self._close(ClusterClosedError("the cluster was closed"))

    def _close_one(self) -> None:
        with self._open_lock:
            self._num_open -= 1
