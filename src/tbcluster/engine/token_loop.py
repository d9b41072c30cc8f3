"""What the engine does in its thread: schedule, submit, collect, update, emit."""

import logging
from collections.abc import Callable, Iterable

from tbcluster.core import Request, SampledToken, StepResult, TokenId
from tbcluster.engine.admission import Admission
from tbcluster.engine.detokenizer import Detokenizer, TextStream, behind_prompt
from tbcluster.engine.emission import Emitter, tell
from tbcluster.engine.examiner import Examiner, OnExamined
from tbcluster.engine.limits import shortage
from tbcluster.engine.open_requests import OpenRequests
from tbcluster.engine.prefix_disk import PrefixDisk
from tbcluster.engine.sequence import Listener, Sequence
from tbcluster.engine.statistics import Counters
from tbcluster.engine.step_log import CANCELLED, ERROR, MOVED, STOP, StepLog
from tbcluster.engine.works import Works
from tbcluster.errors import (
    RequestError,
    StageError,
    StageLostError,
    StarvedError,
    TbclusterError,
)

logger = logging.getLogger(__name__)

# A step that fails takes all its rows with it: each may try once more.
MAX_FAILURES = 1
# Cancellations of requests that may yet move in from another engine.
MAX_REMEMBERED = 4096


class TokenLoop:
    """The sequences, and what becomes of them turn by turn. For one thread alone.

    Attributes:
        works: What it drives; other threads may read it.
        is_held: Whether requests wait instead of starting.
        log: What was done; other threads may read it.
        on_first_token: Called, and forgotten, when the next token has come.
    """

    def __init__(
        self,
        works: Works,
        requests: OpenRequests,
        new_detokenizer: Callable[[], Detokenizer],
        clock: Callable[[], float],
    ) -> None:
        self.works = works
        self.is_held = True
        self.on_first_token: Callable[[], None] | None = None
        self.counters = Counters(works.caches.num_stages)
        self.log = StepLog(clock)
        self._examiner = Examiner()
        self._requests = requests
        self._new_detokenizer = new_detokenizer
        self._clock = clock
        self._admission = Admission(works.scheduler, works.caches)
        self._running: dict[int, Sequence] = {}
        self._emitter = Emitter(self._end, clock)
        self._num_arrivals = 0
        self._cancelled: dict[str, None] = {}

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._admission)

    def turn(self, begun_at: float, timeout_s: float | None) -> None:
        """One turn. Text is made while the stages compute the next tokens."""
        self.send()
        asked = self._clock()
        answered_at = self.receive(timeout_s)
        self.counters.own_s += asked - begun_at + self._clock() - answered_at

    def send(self) -> None:
        """The first half of a turn: whatever can start starts, steps go out, listeners are told."""
        if not self.is_held:
            self._admission.admit(self._start, self.works.limits.max_running - self.num_running)
        self._schedule()
        self._emitter.emit()

    def receive(self, timeout_s: float | None) -> float:
        """The second half: wait for a result, and take in all that are there. Returns when the
        waiting ended."""
        pipeline = self.works.pipeline
        result = pipeline.collect(timeout_s)
        answered_at = self._clock()
        while result is not None:
            self._update(result)
            result = pipeline.collect(0)
        return answered_at

    # Requests come and go

    def enqueue(self, request: Request, listener: Listener, is_probe: bool) -> None:
        """A request was submitted; a probe starts at once."""
        self._cancelled.pop(request.request_id, None)
        sequence = Sequence(request, listener, self._next_arrival(), is_probe=is_probe)
        self.log.submitted(sequence)
        if self._wait(sequence) and is_probe and self._start(sequence):
            self._admission.discard(sequence)

    def adopt(self, sequences: Iterable[Sequence]) -> None:
        """Sequences that waited in another engine wait here."""
        for sequence in sequences:
            if sequence.request.request_id in self._cancelled:
                self._requests.leave()
                self.log.turned_away(sequence, CANCELLED)
                continue
            sequence.arrival = self._next_arrival()
            self.log.submitted(sequence)
            self._wait(sequence)

    def surrender(
        self, take: Callable[[list[Sequence]], None], fits: Callable[[Request], bool]
    ) -> None:
        """Those that wait, and fit there, go elsewhere."""
        self._emitter.emit()
        leaving = [s for s in self._admission if not s.is_probe and fits(s.request)]
        for sequence in leaving:
            self._end(sequence, MOVED)
        take(leaving)

    def cancel(self, request_id: str) -> None:
        """End a request without a word."""
        found = [s for s in self._open_sequences() if s.request.request_id == request_id]
        for sequence in found:
            self._end(sequence, CANCELLED)
        self._emitter.discard(request_id)
        if not found:
            self._cancelled[request_id] = None
            if len(self._cancelled) > MAX_REMEMBERED:
                del self._cancelled[next(iter(self._cancelled))]

    def end_all(self, error: TbclusterError) -> None:
        """Every request ends with `error`."""
        self._take_back_all()
        self._examiner.end(error)
        for sequence in self._admission:
            self._refuse(sequence, error)

    def examine(self, tokens: tuple[TokenId, ...], on_result: OnExamined) -> None:
        """An examination was asked for."""
        if (lacking := shortage(len(tokens) + 1, self.works.limits)) is not None:
            tell(on_result, StarvedError(f"an examination cannot be made: {lacking}"))
        else:
            self._examiner.ask(tokens, on_result)

    def _next_arrival(self) -> int:
        self._num_arrivals += 1
        return self._num_arrivals

    def _open_sequences(self) -> list[Sequence]:
        return [*self._running.values(), *self._admission]

    def _wait(self, sequence: Sequence) -> bool:
        """Let a sequence wait for its turn; False where it never gets one."""
        refusal = self._requests.refusal(is_probe=sequence.is_probe) or self._shortage(sequence)
        self._admission.add(sequence)
        if refusal is not None:
            self._refuse(sequence, refusal)
        return refusal is None

    def _shortage(self, sequence: Sequence) -> StarvedError | None:
        """Why a sequence cannot take one more step, nor could it alone."""
        num_new = 0 if sequence.embedding is not None else 1
        lacking = shortage(len(sequence.tokens) + num_new, self.works.limits)
        if lacking is None:
            return None
        return StarvedError(
            f"this request cannot be finished: {lacking}. Send it again when more nodes are there, "
            "or a shorter one"
        )

    def _refuse(self, sequence: Sequence, error: TbclusterError) -> None:
        self._end(sequence, ERROR)
        tell(sequence.listener, error)

    # Epochs

    def pause(self) -> None:
        """What the stages hold counts as gone. Whatever runs starts over, and waits with all others
        in order of arrival; what was to tell about these stages ends."""
        self._take_back_all()
        lost = StageLostError("a stage was lost meanwhile: try again")
        self._examiner.end(lost)
        for sequence in self._admission:
            if sequence.is_probe:
                self._refuse(sequence, lost)

    def begin_epoch(self, epoch: int, works: Works | None) -> None:
        """Pause, once more: requests may have been let in since the loss. Then steps carry another
        number, and may go to other stages."""
        self.pause()
        if works is not None:
            self._drive(works)
        self.works.pipeline.begin_epoch(epoch)
        self.log.begin_epoch(epoch)

    def reset_statistics(self) -> None:
        """Count from zero again."""
        self.counters = Counters(self.works.caches.num_stages)
        self.log.reset()

    def _take_back_all(self) -> None:
        self.is_held = True
        # First, since it may end some.
        self._emitter.emit()
        running, self._running = self._running, {}
        self.works.forget()
        for sequence in running.values():
            sequence.start_over()
            self._admission.add(sequence)

    def _drive(self, works: Works) -> None:
        waiting = list(self._admission)
        self.works = works
        self._admission = Admission(works.scheduler, works.caches)
        self.counters = self.counters.over(works.caches.num_stages)
        for sequence in waiting:
            self._wait(sequence)

    # Schedule, submit

    def _start(self, sequence: Sequence) -> bool:
        """Give a sequence a cache and let it take part; False when there is no room."""
        started = self.works.caches.start(
            sequence.tokens,
            uses_prefixes=sequence.uses_prefixes,
            num_new=0 if sequence.embedding is not None else 1,
        )
        if started is None:
            return False
        if sequence.text is None:
            sequence.text = self._new_text(sequence.request)
            sequence.started_at = self._clock()
            self.counters.num_prompt_tokens += len(sequence.request.prompt)
        if sequence.num_generated == 0 and started.num_tokens > sequence.num_cached_tokens:
            self.counters.num_cached_tokens += started.num_tokens - sequence.num_cached_tokens
            sequence.num_cached_tokens = started.num_tokens
        sequence.cache_id, sequence.num_scheduled = started.cache_id, started.num_tokens
        sequence.num_reused = started.num_tokens
        if started.prefix is not None and not started.prefix.is_proven:
            sequence.started_from = started.prefix
        self._running[sequence.arrival] = sequence
        self.log.started(sequence)
        self.works.scheduler.add(sequence)
        return True

    def _new_text(self, request: Request) -> TextStream:
        if request.keeps_first_blank:
            return TextStream(behind_prompt(self._new_detokenizer, request.prompt), request.stop)
        return TextStream(self._new_detokenizer(), request.stop)

    def _schedule(self) -> None:
        pipeline, scheduler, caches, _, disk = self.works
        while misled := scheduler.take_misled():
            for sequence in misled:
                # Starting over may mislead others in turn, and take one out twice.
                if sequence.started_from is not None:
                    self._start_over(sequence)
        while micro_batch := scheduler.schedule():
            pipeline.submit(micro_batch, caches.take_operations())
        self._examiner.send(self.works)
        is_idle = not self._running
        # While an epoch begins the stages may not be connected yet: operations wait for company.
        if not (is_idle and self.is_held) and (operations := caches.take_operations()):
            pipeline.submit(None, operations)
        self._take_back_preempted()
        if disk is not None:
            self._save_prefixes(disk)

    def _save_prefixes(self, disk: PrefixDisk) -> None:
        disk.forget(self.works.caches.take_forgotten())
        is_idle = not self._running and not self.is_held
        if is_idle and (operations := disk.next_operations()):
            disk.sent(self.works.pipeline.submit(None, operations), operations)

    def _take_back_preempted(self) -> None:
        for sequence in self.works.scheduler.take_preempted():
            del self._running[sequence.arrival]
            self._admission.add(sequence)
            self.counters.num_preemptions += 1

    # Update

    def _update(self, result: StepResult) -> None:
        computed_us = self.counters.count_step(result)
        if self.works.disk is not None:
            self.works.disk.completed(result.step_id, result.error)
        if result.micro_batch is None:
            if result.error is not None:
                logger.warning("cache operations failed: %s", result.error)
            return
        batch, error = result.micro_batch, result.error
        if batch.is_examined:
            self._examiner.completed(result)
            return
        if error is None and len(result.sampled) != len(batch.samples):
            error = f"{len(result.sampled)} tokens came for {len(batch.samples)} rows"
        if error is None and (result.vector is None) != (batch.pooling is None):
            error = "a vector came that nobody asked for" if result.vector else "no vector came"
        failed = error is not None
        sequences = self.works.scheduler.completed(batch, result.timings, failed=failed)
        self.log.step(result, sequences, self.counters.num_stages)
        share_us = computed_us // max(1, len(sequences))
        for sequence in sequences:
            if sequence is not None:
                sequence.compute_us += share_us
                sequence.num_steps += 1
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
            self._refuse(sequence, error)
            return
        self._end(sequence, STOP)
        tell(sequence.listener, output)

    def _fail(self, sequence: Sequence | None, reason: str) -> None:
        if sequence is None:
            return
        sequence.num_failures += 1
        if sequence.num_failures > MAX_FAILURES:
            self._end(sequence, ERROR, keeps_prefix=False)
            tell(sequence.listener, StageError(reason))
            return
        logger.warning("a step failed, its requests are computed again: %s", reason)
        self._start_over(sequence)

    def _start_over(self, sequence: Sequence) -> None:
        self.works.scheduler.remove(sequence)
        del self._running[sequence.arrival]
        sequence.start_over()
        self._admission.add(sequence)

    def _append(self, sequence: Sequence, sampled: SampledToken) -> None:
        if sampled.error is not None:
            # Its own grammar is at fault, which the client chose.
            self._refuse(sequence, RequestError(sampled.error))
            return
        if sequence.num_generated == 0:
            sequence.first_token_at = self._clock()
        sequence.tokens.append(sampled.token)
        sequence.num_in_vain = 0
        self.counters.num_generated_tokens += 1
        if self.on_first_token is not None and not sequence.is_probe:
            self.on_first_token()
            self.on_first_token = None
        finish = sequence.finish_reason_after(sampled.token)
        self._emitter.add(sequence, sampled, finish)
        if finish is not None:
            self._end(sequence, finish.value)
        elif (lacking := self._shortage(sequence)) is not None:
            self._emitter.emit()
            # Its text may just have ended it.
            if sequence.arrival in self._running:
                self._refuse(sequence, lacking)

    def _end(self, sequence: Sequence, outcome: str, *, keeps_prefix: bool = True) -> None:
        """Free a sequence's row or cache on all stages; later results of it are ignored."""
        if self._running.pop(sequence.arrival, None) is not None:
            keeps_prefix = keeps_prefix and sequence.leaves_prefixes
            self.works.scheduler.remove(sequence, keeps_prefix=keeps_prefix)
        elif not self._admission.discard(sequence):
            return
        self._requests.leave()
        self.log.ended(sequence, outcome)
