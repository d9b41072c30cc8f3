"""A pipeline on a virtual clock: the real scheduler, stages that take a computed time."""

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

from tbcluster.core import MicroBatch, Request, VisitTiming
from tbcluster.engine.scheduler import Scheduler
from tbcluster.engine.sequence import Sequence
from tests.doubles.engines import Settings, new_caches, new_scheduler


@dataclass
class Stage:
    """A stage that takes `fixed_us` for a micro-batch and `token_us` for each token in it."""

    fixed_us: float
    token_us: float
    free_at: float = 0.0
    busy_us: float = 0.0

    def run(self, arrives_at: float, num_tokens: int) -> tuple[float, VisitTiming]:
        starts_at = max(self.free_at, arrives_at)
        compute_us = self.fixed_us + num_tokens * self.token_us
        timing = VisitTiming(round(compute_us), round(starts_at - self.free_at))
        self.free_at = starts_at + compute_us
        self.busy_us += compute_us
        return self.free_at, timing


@dataclass
class Stream:
    """A sequence and when its tokens came, in microseconds."""

    sequence: Sequence
    added_at: float
    token_times: list[float] = field(default_factory=list)

    def gaps(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Times between tokens of which the second came in this span."""
        pairs = zip(self.token_times, self.token_times[1:], strict=False)
        return [after - before for before, after in pairs if since <= after < until]


class VirtualPipeline:
    """Drives a scheduler as an engine does."""

    def __init__(
        self, stages: list[tuple[float, float]], hop_us: float = 200.0, **settings: int
    ) -> None:
        self.stages = [Stage(*times) for times in stages]
        self.hop_us = hop_us
        self.now = 0.0
        shape = Settings(num_stages=len(stages), chunk_tokens=2048, **settings)
        self.caches = new_caches(shape)
        self.scheduler: Scheduler = new_scheduler(shape, self.caches)
        self.streams: dict[int, Stream] = {}
        self.running: dict[int, Stream] = {}
        self.waiting: deque[Stream] = deque()
        self._results: list[tuple[float, int, MicroBatch, tuple[VisitTiming, ...]]] = []
        self._num_sent = 0

    def add(self, prompt_length: int, num_tokens: int) -> Stream:
        """A request arrives now."""
        number = len(self.streams)
        # No two prompts have a prefix in common.
        prompt = (number, *range(prompt_length - 1))
        request = Request(str(number), prompt, num_tokens)
        stream = Stream(Sequence(request, lambda _: None, number), self.now)
        self.streams[number] = stream
        self.waiting.append(stream)
        return stream

    def cancel(self, stream: Stream) -> None:
        self._end(stream)

    def run(self, until: float = float("inf")) -> None:
        """Go on until this time, or until nothing is left to do."""
        self._send()
        while self._results and self._results[0][0] <= until:
            self.now, _, micro_batch, timings = heappop(self._results)
            self._complete(micro_batch, timings)
            self._send()
        if until < float("inf"):
            self.now = until

    def run_until_done(self, stream: Stream) -> float:
        """Go on until this stream has all its tokens; the time is returned."""
        while stream.sequence.arrival in self.running or stream in self.waiting:
            assert self._results or self.waiting
            self.run(self._results[0][0] if self._results else self.now)
        return self.now

    def idle_share(self, since: float) -> float:
        """Of the busiest stage."""
        return 1 - max(stage.busy_us for stage in self.stages) / (self.now - since)

    def _send(self) -> None:
        self.scheduler.settle()
        self._admit()
        while micro_batch := self.scheduler.schedule():
            self._travel(micro_batch)
        self.caches.take_operations()
        for sequence in self.scheduler.take_preempted():
            self.waiting.appendleft(self.running.pop(sequence.arrival))

    def _admit(self) -> None:
        while self.waiting:
            sequence = self.waiting[0].sequence
            started = self.caches.start(sequence.tokens, uses_prefixes=False)
            if started is None:
                return
            sequence.cache_id, sequence.num_scheduled = started.cache_id, started.num_tokens
            self.scheduler.add(sequence)
            self.running[sequence.arrival] = self.waiting.popleft()

    def _travel(self, micro_batch: MicroBatch) -> None:
        at, timings = self.now, []
        for stage in self.stages:
            at, timing = stage.run(at + self.hop_us, len(micro_batch.tokens))
            timings.append(timing)
        self._num_sent += 1
        heappush(self._results, (at + self.hop_us, self._num_sent, micro_batch, tuple(timings)))

    def _complete(self, micro_batch: MicroBatch, timings: tuple[VisitTiming, ...]) -> None:
        sequences = self.scheduler.completed(micro_batch, timings)
        for sequence in sequences if micro_batch.samples else ():
            if sequence is not None:
                self._take_token(self.running[sequence.arrival])

    def _take_token(self, stream: Stream) -> None:
        stream.token_times.append(self.now)
        stream.sequence.tokens.append(1)
        if stream.sequence.num_generated >= stream.sequence.request.max_tokens:
            self._end(stream)

    def _end(self, stream: Stream) -> None:
        if self.running.pop(stream.sequence.arrival, None) is not None:
            self.scheduler.remove(stream.sequence)
        elif stream in self.waiting:
            self.waiting.remove(stream)
