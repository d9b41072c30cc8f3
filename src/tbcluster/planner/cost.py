"""Memory and time of any range of layers on any node, from prefix sums: O(1) for each. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from tbcluster.core import MAX_CHUNK_TOKENS, StageRange
from tbcluster.planner.nodes import NodeSpeed, PlanLink
from tbcluster.planner.profile import ModelProfile, PartProfile
from tbcluster.planner.weight_kinds import bits_per_weight

Array = npt.NDArray[np.float64]

# KV caches have at most 70 % of what the weights leave: while lanes are regrouped, caches are
# copied, and the old ones are let go only then. 3/7 of them are therefore kept free beside them.
COPY_SHARE = 3 / 7
# Of a node's memory: buffers that MLX keeps for reuse, attention scores, rounding of allocations.
RESERVE_SHARE = 0.02
LOGIT_BYTES = 4
# Sampling passes over a row of logits so often: the largest, the sum, the logarithms, the choice.
SAMPLE_PASSES = 4
# A layer with routed experts starts that many times the small kernels of a dense one: scores, the
# choice, gathering, the weighted sum. A 40-layer mixture with 3 billion active parameters in 8 bits
# decodes at 72 tokens/s on an M2 Ultra (openclawradar.com, MLX in April 2026): 0.22 ms a layer
# beside its bytes, against 0.06 ms of dense ones (`cluster.chip_speeds`).
ROUTED_LAYER = 3.5


@dataclass(frozen=True, slots=True)
class Promise:
    """What one replica has to hold.

    Attributes:
        context: Tokens of each stream.
        kv_memory_bytes: KV memory of each stage, if it is given by hand.
    """

    context: int
    streams: int
    kv_memory_bytes: int | None = None

    def num_lanes(self, num_stages: int) -> int:
        """Sequences that decode together are a lane; as many lanes keep as many stages busy."""
        return max(1, min(num_stages, self.streams))

    def rows(self, num_stages: int) -> float:
        """Sequences of a lane, on average."""
        return max(1, self.streams) / self.num_lanes(num_stages)


@dataclass(frozen=True, slots=True)
class RangeMemory:
    """What a range of layers takes, in bytes, beside the reserve of its node."""

    weight_bytes: int
    kv_bytes: int
    activation_bytes: int

    @property
    def copy_bytes(self) -> int:
        """Free for copies of KV caches."""
        return int(self.kv_bytes * COPY_SHARE)

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.activation_bytes + self.copy_bytes


def reserve_bytes(memory_bytes: int) -> int:
    """What stays free on a node of this much memory, whatever it runs."""
    return int(memory_bytes * RESERVE_SHARE)


class MemoryCosts:
    """Memory of ranges of a model's layers under a promise."""

    def __init__(self, profile: ModelProfile, promise: Promise) -> None:
        self._profile = profile
        self._promise = promise
        self._weights = _sums(part.weight_bytes for part in profile.layers)
        self._kv = _sums(
            promise.streams * sum(cost.held_bytes(promise.context) for cost in part.caches)
            for part in profile.layers
        )
        # Caches of parts that every stage has, whatever its layers.
        self._shared_kv = promise.streams * sum(
            cost.held_bytes(promise.context) for cost in profile.shared.caches
        )
        self._activations = activation_bytes(profile)

    def of(self, layers: StageRange) -> RangeMemory:
        """What a stage of these layers takes."""
        profile, start, end = self._profile, layers.start, layers.end
        is_first, is_last = start == 0, end == len(profile.layers)
        weights = self._weights[end] - self._weights[start] + profile.shared.weight_bytes
        weights += profile.embedding.weight_bytes if is_first else 0
        weights += profile.head.weight_bytes if is_last else 0
        weights -= profile.tied_bytes if is_first and is_last else 0
        logits = profile.vocab_size * LOGIT_BYTES * self._promise.streams if is_last else 0
        return RangeMemory(weights, self._kv_bytes(start, end), self._activations + logits)

    def needed_kv_bytes(self, layers: StageRange) -> int:
        """What the promise takes, whatever was given by hand."""
        return self._kv[layers.end] - self._kv[layers.start] + self._shared_kv

    def table(self, bounds: Sequence[int]) -> npt.NDArray[np.int64]:
        """Total bytes of the stage between every two of these bounds; entry [i, j] is for layers
        `bounds[i]` up to `bounds[j]`, -1 where that is no stage."""
        size = len(bounds)
        sizes = np.full((size, size), -1, np.int64)
        weights = np.array([self._weights[bound] for bound in bounds], np.int64)
        kv = np.array([self._kv[bound] for bound in bounds], np.int64)
        profile = self._profile
        whole = weights[None, :] - weights[:, None] + profile.shared.weight_bytes
        whole[0, :] += profile.embedding.weight_bytes
        whole[:, -1] += profile.head.weight_bytes
        whole[0, -1] -= profile.tied_bytes
        by_hand = self._promise.kv_memory_bytes
        held = kv[None, :] - kv[:, None] + self._shared_kv
        held = np.full_like(held, by_hand) if by_hand is not None else held
        whole += held + (held * COPY_SHARE).astype(np.int64) + self._activations
        whole[:, -1] += profile.vocab_size * LOGIT_BYTES * self._promise.streams
        upper = np.triu_indices(size, 1)
        sizes[upper] = whole[upper]
        return sizes

    def _kv_bytes(self, start: int, end: int) -> int:
        by_hand = self._promise.kv_memory_bytes
        return self.needed_kv_bytes(StageRange(start, end)) if by_hand is None else by_hand


def activation_bytes(profile: ModelProfile) -> int:
    """Bound for what a prefill chunk of MAX_CHUNK_TOKENS tokens needs on a stage meanwhile.

    Hidden states come in, go out and are kept beside a layer's work; the outputs of all matrices of
    the widest layer count as if all were alive at once. A layer's multiplications tell how wide
    these are together: each output value takes 2 x width of the hidden states.
    """
    value_bytes = 4 if profile.weight_kind == "float32" else 2
    width = max(1, profile.hidden_bytes // value_bytes)
    widest = max(part.flops for part in profile.layers) // (2 * width)
    return MAX_CHUNK_TOKENS * (3 * profile.hidden_bytes + widest * value_bytes)


@dataclass(frozen=True, slots=True)
class Load:
    """What a step computes: `rows` tokens through all layers, `head_rows` of them through the head,
    over `streams` caches of `context` tokens each."""

    rows: float
    head_rows: float
    streams: float
    context: int

    @property
    def is_prompt(self) -> bool:
        """Whether it is a chunk of a prompt: several tokens of one sequence."""
        return self.rows > self.streams


def decode_load(promise: Promise, num_stages: int) -> Load:
    """A lane of the promised streams, half way through the promised context."""
    rows = promise.rows(num_stages)
    return Load(rows, rows, rows, promise.context // 2)


def prefill_load(promise: Promise) -> Load:
    """A whole chunk in the middle of a prompt of the promised length; one token of it is sampled
    from at most."""
    return Load(MAX_CHUNK_TOKENS, 1, 1, promise.context // 2)


class LayerKinds:
    """The layers of a model by kind: most are equal."""

    def __init__(self, layers: Sequence[PartProfile]) -> None:
        known: dict[PartProfile, int] = {}
        self.of_layer = [known.setdefault(part, len(known)) for part in layers]
        self.distinct = list(known)


class TimeCosts:
    """Seconds that a node computes on a step, for any range of layers.

    Args:
        kinds: Those of the profile's layers, where they are known.

    Attributes:
        head_s: How much of the last stage's visit are the head and sampling.
    """

    def __init__(
        self, profile: ModelProfile, speed: NodeSpeed, load: Load, kinds: LayerKinds | None = None
    ) -> None:
        flop_s = matmul_flop_s(speed, profile.weight_kind)

        def seconds(part: PartProfile, rows: float = load.rows) -> float:
            return weights_s(part, speed, rows) + attention_s(part, speed, flop_s, load)

        kinds = kinds or LayerKinds(profile.layers)
        of_kind = np.array([seconds(part) + layer_s(part, speed) for part in kinds.distinct])
        self._num_layers = len(profile.layers)
        self._visits = profile.num_visits
        self._sums = np.concatenate(([0.0], np.cumsum(of_kind[kinds.of_layer])))
        self._stage_s = speed.stage_s + seconds(profile.shared)
        # A lookup reads a row: what is left of an embedding's bytes is computed with.
        self._embedding_s = seconds(profile.embedding)
        self.head_s = seconds(profile.head, load.head_rows)
        self.head_s += sampling_s(profile, speed, load.head_rows)

    def of(self, layers: StageRange) -> float:
        """All visits of a step to a stage of these layers."""
        total = float(self._sums[layers.end] - self._sums[layers.start]) + self._stage_s
        total += self._embedding_s if layers.start == 0 else 0.0
        total += self.head_s if layers.end == self._num_layers else 0.0
        return self._visits * total

    def table(self, bounds: Sequence[int]) -> Array:
        """`of` the stage between every two of these bounds; infinite where that is no stage."""
        sums = self._sums[list(bounds)]
        times = sums[None, :] - sums[:, None] + self._stage_s
        times[0, :] += self._embedding_s
        times[:, -1] += self.head_s
        times[np.tril_indices(len(bounds))] = np.inf
        scaled: Array = times * self._visits
        return scaled


def rate_at(speed: NodeSpeed, rows: float) -> float:
    """Seconds for each byte of weights, at so many rows."""
    first_rows, first_rate = speed.rates[0]
    if rows <= first_rows:
        return first_rate
    for (fewer, low), (more, high) in pairwise(speed.rates):
        if rows <= more:
            return low + (high - low) * (rows - fewer) / (more - fewer)
    last_rows, last_rate = speed.rates[-1]
    return last_rate * rows / last_rows


def transfer_s(link: PlanLink, profile: ModelProfile, rows: float) -> float:
    """How long the hidden states of so many tokens occupy a link."""
    return rows * profile.hidden_bytes / link.bytes_per_s


def matmul_flop_s(speed: NodeSpeed, weight_kind: str) -> float:
    """Seconds of a multiplication or addition where many rows keep the machine busy."""
    rows, byte_s = speed.rates[-1]
    return byte_s * bits_per_weight(weight_kind) / 8 / (2 * rows)


def layer_s(part: PartProfile, speed: NodeSpeed) -> float:
    """The small operations of a layer."""
    return speed.layer_s * (ROUTED_LAYER if part.num_experts else 1.0)


def weights_s(part: PartProfile, speed: NodeSpeed, rows: float) -> float:
    """Multiplying so many rows with a part's weights. Of routed experts those are read that one of
    the rows uses, if each row chooses for itself."""
    dense = part.weight_bytes - part.expert_bytes - part.lookup_bytes
    seconds = dense * rate_at(speed, rows)
    if part.num_experts:
        share = part.experts_per_token / part.num_experts
        used = 1 - (1 - share) ** rows
        rows_of_each = rows * share / used if used else 1.0
        seconds += part.expert_bytes * used * rate_at(speed, max(1.0, rows_of_each))
    else:
        seconds += part.expert_bytes * rate_at(speed, rows)
    return seconds


def attention_s(part: PartProfile, speed: NodeSpeed, flop_s: float, load: Load) -> float:
    """A layer's attention over its caches: reading them or computing with them, whichever takes
    longer. The tokens of a prompt's chunk see half of it on average, beside what came before."""
    if not part.caches:
        return 0.0
    own = load.rows / max(1.0, load.streams)
    context = int(load.context + (own / 2 if load.is_prompt else 0))
    cached = sum(cost.num_bytes(context) for cost in part.caches)
    windows = [cost.window or context for cost in part.caches if cost.bytes_per_token]
    visible = min(context, max(windows, default=0))
    costs = part.attention
    read_s = load.streams * cached * speed.cache_s_per_byte
    if load.is_prompt:
        flops = visible * (load.rows * costs.prompt_flops + load.streams * costs.unpack_flops)
        return max(read_s, flops * flop_s)
    flops = visible * load.rows * costs.decode_flops
    if costs.unpack_flops:
        # All heads share the latent KV: matrices, not vectors.
        return max(read_s, flops * flop_s)
    return read_s + flops * speed.vector_flop_s


def sampling_s(profile: ModelProfile, speed: NodeSpeed, rows: float) -> float:
    """The next token of so many rows, from their logits."""
    num_bytes = rows * profile.vocab_size * LOGIT_BYTES * SAMPLE_PASSES
    return num_bytes * speed.cache_s_per_byte


def _sums(sizes: Iterable[int]) -> list[int]:
    return list(accumulate(sizes, initial=0))
