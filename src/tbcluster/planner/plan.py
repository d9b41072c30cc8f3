"""What a plan says: who runs which layers, with what memory, how fast, and why. Pure."""

from dataclasses import dataclass

from tbcluster.core import StageRange

DEFAULT_CONTEXT = 8192
DEFAULT_STREAMS = 4


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a plan has to promise.

    Attributes:
        context: Tokens of each stream, prompt and answer; None for DEFAULT_CONTEXT, or less where
            the model's own is less or less fits.
        streams: How many of that length at once, over all replicas.
        stages: Exactly so many stages in each replica; None for the best number.
        replicas: Exactly so many; None for one where stages are wished for, else for the best
            number.
        kv_memory_bytes: KV memory of each stage by hand; None for what the promise needs.
        kv_bits: Of the caches that the profile counts with, if they are quantized: fewer bits are
            named as a way out only where there are fewer.
        plan_file: Where a plan by hand was read from, for errors; empty for none.
    """

    context: int | None = None
    streams: int = DEFAULT_STREAMS
    stages: int | None = None
    replicas: int | None = None
    kv_memory_bytes: int | None = None
    kv_bits: int | None = None
    plan_file: str = ""


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage, what it takes of its node's memory in bytes, and how long its steps take.

    Attributes:
        kv_bytes: KV caches of the promised context and streams.
        activation_bytes: Hidden states and what a prefill chunk needs meanwhile.
        reserve_bytes: Kept free, for copies while lanes are regrouped and for the system.
        memory_bytes: What models may take there (see `PlanNode`).
        decode_s: One decode step of a lane of the promised streams, at half the promised context.
        prefill_s: One prefill chunk of MAX_CHUNK_TOKENS tokens.
        hop_s: From this stage to the next one (from the last one to the coordinator), decode.
    """

    node: str
    layers: StageRange
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    reserve_bytes: int
    memory_bytes: int
    decode_s: float
    prefill_s: float
    hop_s: float

    @property
    def used_bytes(self) -> int:
        """All of it together."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes + self.reserve_bytes


@dataclass(frozen=True, slots=True)
class PlannedReplica:
    """One copy of the model.

    Attributes:
        slowest_s: The slowest node or link of a decode step, by how long it is busy: it bounds the
            throughput.
        step_s: One token's whole trip at one stream: it bounds a single stream.
        longest_context: Tokens that one stream alone may have.
        streams: How many of the promised ones it takes.
        tokens_per_s: Of all its streams together; `stream_tokens_per_s` of one alone;
            `prefill_tokens_per_s` of a long prompt.
    """

    stages: tuple[PlannedStage, ...]
    slowest_s: float
    step_s: float
    longest_context: int
    streams: int
    tokens_per_s: float
    stream_tokens_per_s: float
    prefill_tokens_per_s: float


def fingerprint(replica: PlannedReplica) -> str:
    """Equal for replicas whose stages are the same layers on the same nodes."""
    return " ".join(f"{stage.node}={stage.layers}" for stage in replica.stages)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A node that runs nothing, and why."""

    node: str
    because: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which node runs which layers of a model.

    Attributes:
        context: Tokens promised for each stream.
        reasons: Lines for a person: why it is like this.
        is_by_hand: Whether a person gave it.
    """

    model: str
    replicas: tuple[PlannedReplica, ...]
    left_out: tuple[LeftOut, ...]
    context: int
    streams: int
    reasons: tuple[str, ...]
    is_by_hand: bool = False
