"""What a simulation has found, in figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tbcluster.core import StageRange
from tbcluster.simulator.pipeline import Span

PERCENTS = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of many seconds: the value that so many percent of them do not exceed, and the largest."""

    p50_s: float
    p95_s: float
    p99_s: float
    most_s: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Percentiles | None":
        """None of no values."""
        ordered = sorted(values)
        if not ordered:
            return None
        p50_s, p95_s, p99_s = (_percentile(ordered, percent) for percent in PERCENTS)
        return cls(p50_s, p95_s, p99_s, ordered[-1])


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[-(-len(ordered) * percent // 100) - 1]


@dataclass(slots=True)
class RequestRecord:
    """A request and what became of it; times in seconds, None for what has not come."""

    arrival_s: float
    num_prompt: int
    first_s: float | None = None
    last_s: float | None = None
    num_tokens: int = 0
    has_ended: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class StageUse:
    """What a stage did, from when it was ready until it was lost or all was answered.

    Attributes:
        decode_share, prompt_share: Of that time, how much it computed decode steps and prompt
            chunks; the rest it was idle.
        kv_peak_bytes: The most that its KV caches held; it may hold `kv_budget_bytes`.
    """

    replica: int
    stage: int
    node: str
    layers: StageRange
    decode_share: float
    prompt_share: float
    weight_bytes: int
    kv_peak_bytes: int
    kv_budget_bytes: int
    began_s: float
    ended_s: float

    @property
    def idle_share(self) -> float:
        """Of its time."""
        return max(0.0, 1 - self.decode_share - self.prompt_share)


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What a node drew at the wall, on average; None where nobody knows what it draws."""

    node: str
    watts: float | None


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What a rack did with a workload.

    Attributes:
        seconds: From the first arrival to the last token, on the virtual clock, or to the end where
            requests were not answered by then.
        tokens_per_s: Generated, of all streams together, over that whole time.
        prompt_tokens_per_s: Of the prompts, over the same time.
        stream_tokens_per_s: Of one stream, from its first token to its last; the median.
        first_token: From a request's arrival to its first token.
        gap: Between tokens of one stream.
        duration: From arrival to the last token.
        num_unanswered: Requests that had not ended, or not come, at the end.
        num_refused: Requests that ended with an error; `refusals` has the first of each kind.
        watts: Of all nodes together, on average; None where one is not known.
        joules_per_token: Of a generated token, prompts included.
        happenings: Lines on what was lost and taken back.
        spans: What the stages computed, from the beginning; not more than are worth drawing.
    """

    seconds: float
    num_requests: int
    num_unanswered: int
    num_refused: int
    refusals: tuple[str, ...]
    num_prompt_tokens: int
    num_tokens: int
    num_preemptions: int
    tokens_per_s: float
    prompt_tokens_per_s: float
    stream_tokens_per_s: float | None
    first_token: Percentiles | None
    gap: Percentiles | None
    duration: Percentiles | None
    stages: tuple[StageUse, ...]
    nodes: tuple[NodeUse, ...]
    watts: float | None
    joules_per_token: float | None
    price_usd: float | None
    happenings: tuple[str, ...]
    spans: tuple[Span, ...] = field(repr=False, default=())

    @property
    def usd_per_token_per_s(self) -> float | None:
        """What a token a second costs; None where prices are not known."""
        known = self.price_usd is not None and self.tokens_per_s > 0
        return self.price_usd / self.tokens_per_s if known and self.price_usd else None
