"""The nouns of the data path, on one page.

A `Request` (immutable, what the client sent) becomes a `Sequence` in the engine. The scheduler
turns sequences into `MicroBatch`es; the pipeline numbers each as a step and sends it through the
stages; the last stage answers with `SampledToken`s; the engine emits `Output`s.

This module holds data only: no I/O, no MLX, no clock. (The cache operations are msgspec structs
because they are a tagged union on the wire.)
"""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

TokenId = int


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
    """

    request_id: str
    prompt: tuple[TokenId, ...]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[TokenId] = frozenset()


class NewCache(msgspec.Struct, frozen=True, tag_field="op", tag="new", array_like=True):
    """Cache operation: make an empty KV cache on every stage."""

    cache_id: int


class DropCache(msgspec.Struct, frozen=True, tag_field="op", tag="drop", array_like=True):
    """Cache operation: free a KV cache on every stage."""

    cache_id: int


CacheOperation = NewCache | DropCache


@dataclass(frozen=True, slots=True)
class Sample:
    """Ask for one token after the micro-batch's last position.

    `position` counts the tokens before the sampled one; with the seed it fixes the random state, so
    that a step computed again samples the same token.
    """

    params: SamplingParams
    position: int


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Work that travels together: a prompt chunk (`sample` is None) or a decode step."""

    cache_id: int
    tokens: tuple[TokenId, ...]
    sample: Sample | None = None


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
class StepResult:
    """One trip through all stages, seen from its end.

    `compute_us` has one entry per stage visit, in microseconds.
    """

    step_id: int
    micro_batch: MicroBatch | None
    sampled: SampledToken | None
    error: str | None
    compute_us: tuple[int, ...]
    round_trip_us: int


@dataclass(frozen=True, slots=True)
class Output:
    """What a sequence emits per token; the last one carries a finish reason.

    Times are seconds on the engine's monotonic clock.
    """

    text: str
    sampled: SampledToken
    num_prompt_tokens: int
    num_generated_tokens: int
    started_at: float
    first_token_at: float
    emitted_at: float
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class StageRange:
    """A contiguous range of layers, `start` included, `end` not."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"
