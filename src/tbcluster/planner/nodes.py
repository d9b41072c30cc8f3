"""What the planner knows of a rack: nodes, their speeds, the links between them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class SpeedSource(StrEnum):
    """Where a speed comes from."""

    MEASURED = "measured"
    CATALOGUE = "catalogue"  # by the chip's name
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class NodeSpeed:
    """How fast a node computes with weights of one kind.

    Attributes:
        rates: (rows, seconds for each byte of weights) of a step of so many rows, ascending by
            rows: at few rows memory bounds it, at many the matmul. Between two of them it is
            linear, beyond the last one proportional to the rows.
        layer_s: Of each layer and step beside that: kernels started, small operations.
        stage_s: Of each step on a stage, whatever its layers: software of receiving and sending.
        cache_s_per_byte: Of reading KV caches.
        vector_flop_s: Of a multiplication or addition in the attention of decode steps, beside
            reading; 0 where `cache_s_per_byte` has it, because it was measured with queries.
    """

    rates: tuple[tuple[int, float], ...]
    layer_s: float
    stage_s: float
    cache_s_per_byte: float
    source: SpeedSource = SpeedSource.MEASURED
    vector_flop_s: float = 0.0

    def shared_by(self, number: int) -> "NodeSpeed":
        """What each of so many has of it that compute at the same time."""
        return NodeSpeed(
            tuple((rows, rate * number) for rows, rate in self.rates),
            self.layer_s * number,
            self.stage_s * number,
            self.cache_s_per_byte * number,
            self.source,
            self.vector_flop_s * number,
        )


@dataclass(frozen=True, slots=True)
class NodePower:
    """What a machine draws at the wall, in watts: doing nothing, decoding (its memory is busy, its
    GPU half so), computing prompts (all of it is busy)."""

    idle_w: float
    decode_w: float
    prompt_w: float


@dataclass(frozen=True, slots=True)
class PlanNode:
    """A node that stages may be placed on.

    Attributes:
        memory_bytes: What models may take there (the measured working set, less what other models
            hold).
        power: None where nobody knows.
        price_usd: What it costs new; None where nobody knows.
    """

    name: str
    memory_bytes: int
    speed: NodeSpeed
    is_head: bool = False
    power: NodePower | None = None
    price_usd: float | None = None


@dataclass(frozen=True, slots=True)
class PlanLink:
    """The way from one node to another; `latency_s` is for a small message, one way."""

    latency_s: float
    bytes_per_s: float
    kind: str = ""


@dataclass(frozen=True, slots=True)
class PlanRack:
    """Nodes, and the links between them by (source, target); the pairs that are missing cannot
    reach each other. From a node to itself there always is a way.

    Attributes:
        offline: Nodes that cannot be used now: what would fit with them is told where it does not
            without.
    """

    nodes: tuple[PlanNode, ...]
    links: Mapping[tuple[str, str], PlanLink]
    offline: tuple[PlanNode, ...] = ()
