"""The stages of one replica on a virtual clock, driven as the real ones are."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tbcluster.core import MicroBatch, SampledToken, StepResult, VisitTiming
from tbcluster.simulator.events import Events
from tbcluster.simulator.machine import SimulatedMachine
from tbcluster.simulator.positions import Positions
from tbcluster.simulator.stage_times import StageTimes
from tbcluster.wire.operations import CacheOperation

# What every simulated step samples: texts are nobody's concern here.
TOKEN = SampledToken(1)


@dataclass(frozen=True, slots=True)
class Hop:
    """How long messages are on their way: `latency_s` however small they are, and each token
    occupies the way for `token_s`."""

    latency_s: float = 0.0
    token_s: float = 0.0


@dataclass(eq=False, slots=True)
class Way:
    """A way to a stage, which one message after the other occupies."""

    hop: Hop
    free_at: float = 0.0

    def arrival(self, now: float, num_tokens: int) -> float:
        """When a message that is sent now arrives."""
        self.free_at = max(now, self.free_at) + self.hop.token_s * num_tokens
        return self.free_at + self.hop.latency_s


@dataclass(eq=False, slots=True)
class SimulatedStage:
    """A stage, and what it has done.

    Attributes:
        at_once: See `SimulatedMachine`.
        busy_s: Seconds that it had something to compute, of decode steps and of prompts.
        work_s: The same, less what others on its machine took of it.
        way: How steps come here, from the stage before or from the coordinator.
    """

    number: int
    node: str
    times: StageTimes
    machine: SimulatedMachine
    way: Way
    busy_s: list[float] = field(default_factory=lambda: [0.0, 0.0])
    work_s: list[float] = field(default_factory=lambda: [0.0, 0.0])
    queue: deque["_Travel"] = field(default_factory=deque)
    computing: "_Travel | None" = None
    free_at: float = 0.0


@dataclass(eq=False, slots=True)
class _Travel:
    """A step on its way."""

    step_id: int
    micro_batch: MicroBatch
    context: int
    epoch: int
    submitted_at: float
    came_at: float = 0.0
    began_at: float = 0.0
    num_visits: int = 0
    timings: list[VisitTiming] = field(default_factory=list)

    @property
    def is_prompt(self) -> bool:
        return self.micro_batch.is_prompt

    @property
    def num_tokens(self) -> int:
        return len(self.micro_batch.tokens)


@dataclass(frozen=True, slots=True)
class Span:
    """A stage computed a step from `start_s` to `end_s`: `num_tokens` of a prompt, or a token each
    of so many streams."""

    replica: int
    stage: int
    node: str
    start_s: float
    end_s: float
    num_tokens: int
    is_prompt: bool


class SimulatedPipeline:
    """What an engine drives (see `engine.works.Steps`).

    Args:
        leave_s: From the last stage back to the coordinator.
        back: From the last stage to the first one, for models that pass more than once.
        num_visits: How often a step passes through the stages.
        on_result: Called when a result is there to be collected.
        on_span: Called with what each stage has computed; returns whether there is any more use.
    """

    def __init__(
        self,
        events: Events,
        stages: Sequence[SimulatedStage],
        leave_s: float,
        back: Hop,
        num_visits: int,
        on_result: Callable[[], None],
        on_span: Callable[[Span], bool],
        replica: int = 0,
    ) -> None:
        self.stages = tuple(stages)
        self._events = events
        self._leave_s = leave_s
        self._back = Way(back)
        self._num_visits = num_visits
        self._on_result = on_result
        self._on_span = on_span
        self._is_seen = True
        self._replica = replica
        self._positions = Positions()
        self._results: deque[StepResult] = deque()
        self._epoch = 1
        self._next_step_id = 0

    def submit(
        self, micro_batch: MicroBatch | None, operations: tuple[CacheOperation, ...] = ()
    ) -> int:
        """See `Pipeline.submit`. Operations on caches take no time."""
        step_id = self._next_step_id
        self._next_step_id += 1
        for operation in operations:
            self._positions.apply(operation)
        if micro_batch is not None:
            context = self._positions.advance(micro_batch)
            travel = _Travel(step_id, micro_batch, context, self._epoch, self._events.now)
            self._send(travel)
        return step_id

    def collect(self, timeout_s: float | None) -> StepResult | None:
        """The next result, if one is there; never waits, whatever the timeout."""
        return self._results.popleft() if self._results else None

    def wake(self) -> None:
        """Nobody waits."""

    def forget(self) -> None:
        """Steps on their way are gone."""
        self._epoch += 1
        self._results.clear()
        self._positions = Positions()
        for stage in self.stages:
            stage.queue.clear()
            # What computes goes on to its end, and nobody waits for it.

    def begin_epoch(self, epoch: int) -> None:
        """As `forget`."""
        self.forget()

    @property
    def has_results(self) -> bool:
        """Whether `collect` has something."""
        return bool(self._results)

    def _send(self, travel: _Travel) -> None:
        """To the next stage: the way is occupied while tokens travel."""
        stage = self.stages[travel.num_visits % len(self.stages)]
        goes_back = stage.number == 0 and travel.num_visits > 0
        way = self._back if goes_back else stage.way
        arrives = way.arrival(self._events.now, travel.num_tokens)
        if arrives <= self._events.now:
            self._arrive(stage, travel)
        else:
            self._events.at(arrives, lambda: self._arrive(stage, travel))

    def _arrive(self, stage: SimulatedStage, travel: _Travel) -> None:
        if travel.epoch != self._epoch:
            return
        travel.came_at = self._events.now
        stage.queue.append(travel)
        self._begin(stage)

    def _begin(self, stage: SimulatedStage) -> None:
        if stage.computing is not None or not stage.queue:
            return
        travel = stage.queue.popleft()
        stage.computing = travel
        travel.began_at = self._events.now
        seconds = (
            stage.times.chunk_s(travel.num_tokens, travel.context)
            if travel.is_prompt
            else stage.times.decode_s(travel.num_tokens, travel.context)
        )
        stage.work_s[travel.is_prompt] += seconds
        stage.machine.compute(seconds, lambda: self._computed(stage, travel))

    def _computed(self, stage: SimulatedStage, travel: _Travel) -> None:
        now = self._events.now
        stage.computing = None
        stage.busy_s[travel.is_prompt] += now - travel.began_at
        waited_s = max(0.0, travel.came_at - stage.free_at)
        stage.free_at = now
        if self._is_seen:
            self._is_seen = self._on_span(self._span(stage, travel))
        if travel.epoch == self._epoch:
            computed_us = round((now - travel.began_at) * 1e6)
            travel.timings.append(VisitTiming(computed_us, round(waited_s * 1e6)))
            travel.num_visits += 1
            if travel.num_visits < len(self.stages) * self._num_visits:
                self._send(travel)
            else:
                self._events.at(now + self._leave_s, lambda: self._return(travel))
        self._begin(stage)

    def _span(self, stage: SimulatedStage, travel: _Travel) -> Span:
        began_at, now = travel.began_at, self._events.now
        return Span(
            self._replica,
            stage.number,
            stage.node,
            began_at,
            now,
            travel.num_tokens,
            travel.is_prompt,
        )

    def _return(self, travel: _Travel) -> None:
        if travel.epoch != self._epoch:
            return
        self._results.append(
            StepResult(
                step_id=travel.step_id,
                micro_batch=travel.micro_batch,
                sampled=(TOKEN,) * len(travel.micro_batch.samples),
                error=None,
                timings=tuple(travel.timings),
                round_trip_us=round((self._events.now - travel.submitted_at) * 1e6),
            )
        )
        self._on_result()
