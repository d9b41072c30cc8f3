"""A plan under a workload on a virtual clock: the real engine, simulated stages."""

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.routing import Candidate, choose
from tbcluster.core import Output, Request
from tbcluster.errors import TbclusterError
from tbcluster.planner.nodes import PlanRack
from tbcluster.planner.plan import Plan, Wishes
from tbcluster.planner.profile import ModelProfile
from tbcluster.simulator.events import Events
from tbcluster.simulator.failures import Failure, Failures
from tbcluster.simulator.machine import SimulatedMachine
from tbcluster.simulator.pipeline import Span
from tbcluster.simulator.replica import SimulatedRack, SimulatedReplica, is_last
from tbcluster.simulator.results import RequestRecord, SimulationResult
from tbcluster.simulator.summary import summary
from tbcluster.simulator.workload import SimulatedRequest, Workload

# More is not drawn.
MAX_SPANS = 200_000
SHARED_TOKEN, FILLER_TOKEN = 0, 1
# Prompts are told apart by a token behind what they share.
FIRST_OWN_TOKEN = 2


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is to be simulated.

    Attributes:
        wishes: What the plan was made for; plans after failures are as well.
        failures: Nodes that are lost, and when.
        at_once: How many stages of one node compute at full speed at the same time; 1 on a GPU.
        most_s: Seconds on the virtual clock after which it ends, whatever is still open.
        on_progress: Called with how many requests have ended, now and then.
    """

    profile: ModelProfile
    rack: PlanRack
    plan: Plan
    workload: Workload
    kv: KvOptions = field(default_factory=KvOptions)
    wishes: Wishes = field(default_factory=Wishes)
    failures: tuple[Failure, ...] = ()
    at_once: float = 1.0
    most_s: float = float("inf")
    on_progress: Callable[[int], None] | None = None


def simulate(scenario: Scenario) -> SimulationResult:
    """Run it to its end.

    Raises:
        PlanError: The plan's stages cannot reach each other, or have no KV memory.
    """
    return Simulation(scenario).run()


class Simulation:
    """The replicas of a plan, and the clients that use them."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.events = Events()
        self.spans: list[Span] = []
        self.gaps = array("d")
        self.records: list[RequestRecord] = []
        self._num_ended = 0
        self._waiting_clients = deque(
            request for request in scenario.workload.requests if request.arrival_s is None
        )
        machines = {
            node.name: SimulatedMachine(self.events, scenario.at_once)
            for node in scenario.rack.nodes
        }
        on = SimulatedRack(
            self.events, scenario.profile, scenario.rack, machines, scenario.kv, self._note_span
        )
        self.replicas = [
            SimulatedReplica(on, planned, index)
            for index, planned in enumerate(scenario.plan.replicas)
        ]
        self.failures = Failures(scenario, self.events, self.replicas)

    @property
    def num_unanswered(self) -> int:
        """Requests that have not ended, those that have not come included."""
        return len(self.scenario.workload.requests) - self._num_ended

    def run(self) -> SimulationResult:
        """From the first arrival to the end of the last request."""
        for request in self.scenario.workload.requests:
            if request.arrival_s is not None:
                self.events.at(request.arrival_s, partial(self._arrive, request))
        for _ in range(self.scenario.workload.clients):
            self._next_of_client()
        self.failures.plan()
        while self.num_unanswered and self.events.run_next(self.scenario.most_s):
            pass
        return summary(self)

    def _note_span(self, span: Span) -> bool:
        self.spans.append(span)
        return len(self.spans) < MAX_SPANS

    def _next_of_client(self) -> None:
        if self._waiting_clients:
            self._arrive(self._waiting_clients.popleft())

    def _arrive(self, asked: SimulatedRequest) -> None:
        number = len(self.records)
        record = RequestRecord(self.events.now, asked.num_prompt)
        self.records.append(record)
        request = _request(number, asked)
        is_client = asked.arrival_s is None

        def listen(message: Output | TbclusterError) -> None:
            self._hear(record, message)
            if is_last(message):
                self._num_ended += 1
                if self.scenario.on_progress is not None:
                    self.scenario.on_progress(self._num_ended)
                if is_client:
                    self.events.at(self.events.now, self._next_of_client)

        self._replica_for(request).submit(request, listen)

    def _hear(self, record: RequestRecord, message: Output | TbclusterError) -> None:
        now = self.events.now
        if not isinstance(message, Output):
            record.error, record.has_ended = str(message), True
            return
        if record.last_s is None:
            record.first_s = now
        else:
            self.gaps.append(now - record.last_s)
        record.last_s = now
        record.num_tokens += 1
        record.has_ended = message.finish_reason is not None

    def _replica_for(self, request: Request) -> SimulatedReplica:
        if len(self.replicas) == 1:
            return self.replicas[0]
        num_tokens = len(request.prompt) + request.max_tokens
        index = choose(self._candidates(request, num_tokens))
        return self.replicas[index]

    def _candidates(self, request: Request, num_tokens: int) -> Sequence[Candidate]:
        return [
            Candidate(
                index,
                replica.num_open,
                tokens_per_s=planned.tokens_per_s if planned is not None else 1.0,
                num_known=replica.loop.works.caches.num_known(request.prompt)
                if request.cache_prompt
                else 0,
                is_up=planned is not None,
                is_starved=planned is None,
                has_room=replica.has_room(num_tokens),
            )
            for index, replica in enumerate(self.replicas)
            for planned in (replica.planned,)
        ]


def _request(number: int, asked: SimulatedRequest) -> Request:
    shared = (SHARED_TOKEN,) * asked.num_shared
    own = asked.num_prompt - asked.num_shared
    mark = (FIRST_OWN_TOKEN + number,) if own else ()
    return Request(
        request_id=str(number),
        prompt=shared + mark + (FILLER_TOKEN,) * max(0, own - 1),
        max_tokens=asked.num_output,
        cache_prompt=asked.num_shared > 0,
    )
