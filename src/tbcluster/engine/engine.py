"""The token loop. One thread runs it; the public methods may be called from any other."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tbcluster.core import (
    DropCache,
    FinishReason,
    NewCache,
    Output,
    Request,
    SampledToken,
    StepResult,
)
from tbcluster.engine.detokenizer import Detokenizer, TextStream
from tbcluster.engine.limits import Limits, validate
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.scheduler import Scheduler
from tbcluster.engine.sequence import Listener, Sequence
from tbcluster.errors import (
    ClusterClosedError,
    QueueFullError,
    StageError,
    StageLostError,
    TbclusterError,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Emission:
    """A token that was appended and must still be turned into text."""

    sequence: Sequence
    sampled: SampledToken
    count: int
    finish: FinishReason | None


class Engine:
    """Turns requests into outputs by way of the pipeline.

    Args:
        on_failure: Called, in the engine's thread, when its loop has failed for good.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        scheduler: Scheduler,
        new_detokenizer: Callable[[], Detokenizer],
        limits: Limits,
        on_failure: Callable[[TbclusterError], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pipeline = pipeline
        self._scheduler = scheduler
        self._new_detokenizer = new_detokenizer
        self._limits = limits
        self._on_failure = on_failure
        self._clock = clock
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._num_open = 0
        self._open_lock = threading.Lock()
        self._waiting: deque[tuple[Request, Listener]] = deque()
        self._running: dict[int, Sequence] = {}
        self._emissions: list[_Emission] = []
        self._next_cache_id = 0
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

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return self._num_open

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
        self._take_inbox()
        if self._is_stopped:
            return
        self._admit()
        while micro_batch := self._scheduler.schedule():
            self._pipeline.submit(micro_batch)
        self._pipeline.flush()
        self._emit()
        result = self._pipeline.collect(timeout_s)
        if result is not None:
            self._update(result)

    def _admit(self) -> None:
        while self._waiting and not self._is_held:
            if len(self._running) >= self._limits.max_running:
                return
            self._start(*self._waiting[0])
            self._waiting.popleft()

    def _start(self, request: Request, listener: Listener) -> None:
        text = TextStream(self._new_detokenizer(), request.stop)
        sequence = Sequence(request, self._next_cache_id, listener, text, self._clock())
        self._next_cache_id += 1
        self._running[sequence.cache_id] = sequence
        self._pipeline.operate(NewCache(sequence.cache_id))
        self._scheduler.add(sequence)

    def _update(self, result: StepResult) -> None:
        if result.micro_batch is None:
            return
        sequence = self._running.get(result.micro_batch.cache_id)
        self._scheduler.completed(sequence)
        if sequence is None:
            return
        if result.error is not None:
            self._end(sequence)
            _tell(sequence.listener, StageError(result.error))
        elif result.sampled is not None:
            self._append(sequence, result.sampled)

    def _append(self, sequence: Sequence, sampled: SampledToken) -> None:
        if sequence.num_generated == 0:
            sequence.first_token_at = self._clock()
        sequence.tokens.append(sampled.token)
        finish = sequence.finish_reason_after(sampled.token)
        if finish is not None:
            self._end(sequence)
        self._emissions.append(_Emission(sequence, sampled, sequence.num_generated, finish))

    def _emit(self) -> None:
        # Taken out first: one that fails must not be tried again while the engine stops.
        emissions, self._emissions = self._emissions, []
        for item in emissions:
            self._emit_one(item)

    def _emit_one(self, item: _Emission) -> None:
        sequence, finish = item.sequence, item.finish
        try:
            text, stopped = sequence.text.add(item.sampled.token, finish)
        except (LookupError, TypeError, ValueError) as error:
            # A tokenizer that lacks the token must not take the other requests down.
            self._end(sequence)
            reason = f"token {item.sampled.token} has no text in this tokenizer: {error}"
            _tell(sequence.listener, StageError(reason))
            return
        if stopped:
            finish = FinishReason.STOP
            self._end(sequence)
        now = self._clock()
        _tell(sequence.listener, sequence.output(text, item.sampled, now, finish, item.count))

    def _end(self, sequence: Sequence) -> None:
        """Free a sequence's caches on all stages; later results of its steps are ignored."""
        if self._running.pop(sequence.cache_id, None) is None:
            return
        self._scheduler.remove(sequence)
        self._pipeline.operate(DropCache(sequence.cache_id))
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
            _tell(listener, self._closed_by)
        elif while_held:
            self._start(request, listener)
        else:
            self._waiting.append((request, listener))

    def _cancel(self, request_id: str) -> None:
        for sequence in list(self._running.values()):
            if sequence.request.request_id == request_id:
                self._end(sequence)
        kept = [item for item in self._waiting if item[0].request_id != request_id]
        for _ in range(len(self._waiting) - len(kept)):
            self._close_one()
        self._waiting = deque(kept)
        self._emissions = [
            item for item in self._emissions if item.sequence.request.request_id != request_id
        ]

    def _set_held(self, is_held: bool) -> None:
        self._is_held = is_held

    def _fail_running(self, error: TbclusterError) -> None:
        self._emit()
        ended = list(self._running.values())
        self._running.clear()
        self._scheduler.reset()
        self._pipeline.forget()
        for sequence in ended:
            self._close_one()
            _tell(sequence.listener, error)

    def _begin_epoch(self, epoch: int) -> None:
        # As `hold` and `fail_running`, once more: the loss may have come just before an `open`.
        self._set_held(True)
        self._fail_running(StageLostError("the stages were started again: send the request again"))
        self._pipeline.begin_epoch(epoch)

    def _close(self, error: TbclusterError) -> None:
        with self._open_lock:
            self._closed_by = error
        self._fail_running(error)
        while self._waiting:
            _, listener = self._waiting.popleft()
            self._close_one()
            _tell(listener, error)

    def _stop(self) -> None:
        self._is_stopped = True
        self._close(ClusterClosedError("the cluster was closed"))

    def _close_one(self) -> None:
        with self._open_lock:
            self._num_open -= 1


def _tell(listener: Listener, message: Output | TbclusterError) -> None:
    """A listener belongs to a caller: its failure is logged and stays its own."""
    try:
        listener(message)
    except Exception:  # the caller's code may raise anything, and other requests must go on
        logger.exception("a request's listener failed")
