"""The nouns of the data path, on one page.

A `Request` (immutable, what the client sent) becomes a `Sequence` in the engine. The scheduler
turns sequences into `MicroBatch`es; the pipeline numbers each as a step and sends it through the
stages; the last stage answers with `SampledToken`s; the engine emits `Output`s.

This module holds data only: no I/O, no MLX, no clock.
"""

from dataclasses import dataclass, field
from enum import StrEnum

TokenId = int

# Most prompt tokens in one micro-batch: mlx-lm's own step.
MAX_CHUNK_TOKENS = 2048

# What a quantized KV cache may have.
KV_BITS = (8, 4)


class FinishReason(StrEnum):
    """Why a sequence ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the last stage picks a token; the meaning of each field is mlx-lm's.

    Attributes:
        temperature: 0 is greedy.
        top_p: Keep the smallest set of tokens with this much probability; 1 keeps all.
        top_k: Keep the k likeliest tokens; 0 keeps all.
        min_p: Drop tokens below this share of the likeliest token's probability.
        seed: Random state of this request alone; equal seeds give equal text.
        num_logprobs: None for no logprobs, else how many alternatives to report per token.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    num_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for, validated and tokenized.

    Attributes:
        prompt: Token ids, at least one, each below the model's vocabulary size.
        max_tokens: Most tokens to generate, at least 1.
        stop: Texts that end the answer; they are never part of it.
        stop_tokens: Token ids that end the answer.
        cache_prompt: Whether it may start from known prefixes, and be kept as one.
    """

    request_id: str
    prompt: tuple[TokenId, ...]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[TokenId] = frozenset()
    cache_prompt: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """Ask for one token after the last position of a row.

    `position` counts the tokens before the sampled one; with the seed it fixes the random state, so
    that a step computed again samples the same token.
    """

    params: SamplingParams
    position: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Work that travels together: a prompt chunk, or a decode step of a lane.

    Attributes:
        cache_id: The sequence's cache, or the lane's.
        tokens: A chunk's token ids; in a decode step one for each row, in the lane's order.
        samples: One for each row of a decode step; empty for a prompt chunk.
    """

    cache_id: int
    tokens: tuple[TokenId, ...]
    samples: tuple[Sample, ...] = ()

    @property
    def num_rows(self) -> int:
        """How many sequences it holds a part of."""
        return max(1, len(self.samples))


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A token the last stage picked.

    `logprob` is the natural logarithm of its probability before sampling filters;
    `top` holds (token id, logprob) pairs, likeliest first.
    """

    token: TokenId
    logprob: float | None = None
    top: tuple[tuple[TokenId, float], ...] = ()


@dataclass(frozen=True, slots=True)
class VisitTiming:
    """What one stage spent on one visit, in microseconds.

    Attributes:
        compute_us: From when the stage could begin with it until its output was there.
        wait_us: How long before that the stage had nothing to do.
    """

    compute_us: int
    wait_us: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """One trip through all stages, seen from its end.

    `sampled` has one entry per row of a decode step, `timings` one per stage visit.
    """

    step_id: int
    micro_batch: MicroBatch | None
    sampled: tuple[SampledToken, ...]
    error: str | None
    timings: tuple[VisitTiming, ...]
    round_trip_us: int


@dataclass(frozen=True, slots=True)
class Output:
    """What a sequence emits per token; the last one carries a finish reason.

    `num_cached_tokens` of the prompt came from the prefix cache. Times are seconds on the engine's
    monotonic clock.
    """

    text: str
    sampled: SampledToken
    num_prompt_tokens: int
    num_generated_tokens: int
    started_at: float
    first_token_at: float
    emitted_at: float
    num_cached_tokens: int = 0
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class StageRange:
    """A contiguous range of layers, `start` included, `end` not."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"


@dataclass(frozen=True, slots=True)
class CacheCost:
    """Memory of one layer's KV cache for one sequence.

    Attributes:
        fixed_bytes: Held whatever the length (the state of a recurrent layer).
        bytes_per_token: Grows with the length.
        window: Most tokens that are held (sliding-window attention); None for all.
    """

    fixed_bytes: int
    bytes_per_token: int
    window: int | None = None


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """What the coordinator must know of a model's KV caches.

    Attributes:
        costs: For each stage, one entry per cache it keeps.
        can_batch: Whether sequences can decode together, as rows of a lane.
        max_trimmable_tokens: Caches of fewer tokens than this can give up their newest ones
            exactly; 0 for recurrent layers, None for no limit.
        fixed_chunks: Whether prompts must be cut as mlx-lm cuts them, because the architecture's
            output depends on it.
    """

    costs: tuple[tuple[CacheCost, ...], ...]
    can_batch: bool
    max_trimmable_tokens: int | None
    fixed_chunks: bool = False
