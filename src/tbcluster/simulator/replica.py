"""One copy of the model on a virtual clock: the real engine over simulated stages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tbcluster.cluster.kv_options import KvOptions, StageMemory, kv_budgets
from tbcluster.core import Output, Request, TokenId
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.limits import Limits
from tbcluster.engine.open_requests import OpenRequests
from tbcluster.engine.pace import Pace
from tbcluster.engine.prefix_index import PrefixIndex
from tbcluster.engine.scheduler import UNLIMITED, Scheduler, Shape
from tbcluster.engine.sequence import Listener, Sequence
from tbcluster.engine.token_loop import TokenLoop
from tbcluster.engine.works import Works
from tbcluster.errors import ContextLengthError
from tbcluster.planner.nodes import PlanLink, PlanRack
from tbcluster.planner.plan import PlannedReplica
from tbcluster.planner.predict import AT_ONCE, way
from tbcluster.planner.profile import ModelProfile
from tbcluster.simulator.events import Events
from tbcluster.simulator.machine import SimulatedMachine
from tbcluster.simulator.pipeline import Hop, SimulatedPipeline, SimulatedStage, Span, Way
from tbcluster.simulator.stage_times import StageTimes

MAX_LANE_ROWS = 256
MAX_OPEN = 1 << 30


class Wordless:
    """A detokenizer for tokens that have no text."""

    last_segment = ""

    def add_token(self, token: TokenId) -> None:
        """Nothing to say."""

    def finalize(self) -> None:
        """Nor at the end."""


@dataclass(frozen=True, slots=True)
class SimulatedRack:
    """What replicas run on.

    Attributes:
        on_span: Called with all that stages compute.
    """

    events: Events
    profile: ModelProfile
    rack: PlanRack
    machines: Mapping[str, SimulatedMachine]
    kv: KvOptions
    on_span: Callable[[Span], bool]


@dataclass(eq=False, slots=True)
class Life:
    """From when stages were ready to when they were lost, or the end.

    Attributes:
        kv_peak_bytes: Per stage, the most that its KV caches have held; `kv_budgets` they may.
        ended_at: None while it goes on.
    """

    planned: PlannedReplica
    pipeline: SimulatedPipeline
    kv_budgets: tuple[int, ...]
    kv_peak_bytes: list[int]
    began_at: float
    ended_at: float | None = None


class SimulatedReplica:
    """Takes requests, and answers them as a replica of this plan would.

    Attributes:
        planned: What it runs; None while it has no nodes.
        lives: What it has run, one plan after the other.
    """

    def __init__(self, on: SimulatedRack, planned: PlannedReplica, index: int) -> None:
        self._on = on
        self._index = index
        self.planned: PlannedReplica | None = planned
        self._requests = OpenRequests()
        self.lives: list[Life] = []
        works = self._begin(planned)
        self.loop = TokenLoop(works, self._requests, Wordless, on.events.clock)
        self.loop.is_held = False
        self.loop.log.is_on = False
        self._epoch = 1
        self._will_turn = False

    @property
    def pipeline(self) -> SimulatedPipeline:
        """The newest."""
        return self.lives[-1].pipeline

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return self._requests.num_open

    def has_room(self, num_tokens: int) -> bool:
        """Whether a sequence of this length fits at all."""
        longest = self.loop.works.limits.longest
        return longest is None or num_tokens <= longest

    def submit(self, request: Request, listener: Listener) -> None:
        """Let a request wait for its turn, or refuse it if it never fits."""
        num_tokens = len(request.prompt) + request.max_tokens
        if not self.has_room(num_tokens):
            longest = self.loop.works.limits.longest
            listener(ContextLengthError(f"{num_tokens:,} tokens do not fit: {longest:,} do"))
            return
        self._requests.enter(MAX_OPEN, _nothing)
        self.loop.enqueue(request, listener, is_probe=False)
        self._turn_soon()

    def pause(self) -> None:
        """A node is lost: what runs starts over when there are stages again."""
        self.planned = None
        self.lives[-1].ended_at = self._on.events.now
        self.loop.pause()
        self.loop.works.forget()

    def resume(self, planned: PlannedReplica) -> None:
        """Other stages: what waits goes on there."""
        self.planned = planned
        works = self._begin(planned)
        self._epoch += 1
        self.loop.begin_epoch(self._epoch, works)
        self.loop.is_held = False
        self._turn_soon()

    def surrender(self, take: Callable[[list[Sequence]], None]) -> None:
        """All that waits goes elsewhere."""
        self.loop.surrender(take, lambda _: True)

    def adopt(self, sequences: list[Sequence]) -> None:
        """What waited elsewhere waits here."""
        self._requests.move_in(len(sequences), _nothing)
        self.loop.adopt(sequences)
        self._turn_soon()

    def _turn_soon(self) -> None:
        """At this time still, after all else that happens at it."""
        if not self._will_turn:
            self._will_turn = True
            self._on.events.at(self._on.events.now, self._turn)

    def _turn(self) -> None:
        """Collect what has come back, and send what can go."""
        self._will_turn = False
        if self.pipeline.has_results:
            self.loop.receive(0)
        self.loop.send()
        life = self.lives[-1]
        used = self.loop.works.caches.memory.used
        life.kv_peak_bytes = [max(pair) for pair in zip(life.kv_peak_bytes, used, strict=True)]

    def _begin(self, planned: PlannedReplica) -> Works:
        """Stages are ready."""
        pipeline, works = self._works(planned)
        budgets = works.caches.memory.budgets
        peaks = [0] * len(planned.stages)
        self.lives.append(Life(planned, pipeline, budgets, peaks, self._on.events.now))
        return works

    def _works(self, planned: PlannedReplica) -> tuple[SimulatedPipeline, Works]:
        profile, kv = self._on.profile, self._on.kv
        costs = [
            [cost for part in profile.layers[s.layers.start : s.layers.end] for cost in part.caches]
            + list(profile.shared.caches)
            for s in planned.stages
        ]
        machines = [
            StageMemory(
                s.node,
                s.memory_bytes,
                s.weight_bytes,
                s.activation_bytes + s.reserve_bytes,
                s.kv_bytes,
            )
            for s in planned.stages
        ]
        memory = KvMemory(costs, kv_budgets(costs, kv, machines))
        caches = CacheBook(memory, PrefixIndex(None), reuses_prefixes=kv.prefix_cache)
        num_stages, is_looped = len(planned.stages), profile.num_visits > 1
        shape = Shape(
            num_stages,
            max_rows=1 if kv.bits else MAX_LANE_ROWS,
            max_per_sequence=1 if is_looped else UNLIMITED,
        )
        pipeline = self._pipeline(planned)
        limits = Limits(
            profile.vocab_size, profile.context_length, kv_tokens=memory.capacity_tokens()
        )
        scheduler = Scheduler(shape, caches, Pace(num_stages))
        return pipeline, Works(pipeline, scheduler, caches, limits)

    def _pipeline(self, planned: PlannedReplica) -> SimulatedPipeline:
        on, rack = self._on, self._on.rack
        speeds = {node.name: node.speed for node in rack.nodes}
        head = next((node.name for node in rack.nodes if node.is_head), None)
        nodes = [stage.node for stage in planned.stages]
        stages = []
        for number, (stage, before) in enumerate(
            zip(planned.stages, (head, *nodes[:-1]), strict=True)
        ):
            link = way(rack, before, stage.node) if before is not None else AT_ONCE
            # From the coordinator come tokens, of which a message holds thousands.
            hop = self._hop(link) if number else Hop(link.latency_s)
            times = StageTimes(on.profile, speeds[stage.node], stage.layers)
            machine = on.machines[stage.node]
            stages.append(SimulatedStage(number, stage.node, times, machine, Way(hop)))
        is_looped = on.profile.num_visits > 1
        return SimulatedPipeline(
            on.events,
            stages,
            way(rack, nodes[-1], head).latency_s if head is not None else 0.0,
            self._hop(way(rack, nodes[-1], nodes[0])) if is_looped else Hop(),
            on.profile.num_visits,
            self._turn_soon,
            on.on_span,
            self._index,
        )

    def _hop(self, link: PlanLink) -> Hop:
        return Hop(link.latency_s, self._on.profile.hidden_bytes / link.bytes_per_s)


def _nothing() -> None:
    """One thread does it all: nobody has to be told."""


def is_last(message: object) -> bool:
    """Whether a listener hears no more."""
    return not isinstance(message, Output) or message.finish_reason is not None
