"""The nouns of the data path, on one page.

A `Request` (immutable, what the client sent) becomes a `Sequence` in the engine. The scheduler
turns sequences into `MicroBatch`es; the pipeline numbers each as a step and sends it through the
stages; the last stage answers with `SampledToken`s; the engine emits `Output`s.

This module holds data only: no I/O, no MLX, no clock.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

TokenId = int

# Most prompt tokens in one micro-batch: mlx-lm's own step.
MAX_CHUNK_TOKENS = 2048

# Most tokens of an answer, unless a request says otherwise.
DEFAULT_MAX_TOKENS = 256

# Longest serialized grammar: some hundred tools with their schemas.
MAX_GRAMMAR_CHARS = 1 << 17

# What a quantized KV cache may have.
KV_BITS = (8, 4)

# By how many tokens KV caches grow: mlx-lm's KVCache.step.
KV_BLOCK_TOKENS = 256


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
class Grammar:
    """What an answer has to match, and how long the reasoning before it may be.

    Attributes:
        text: llguidance's own serialization; None for any answer.
        think_start: Tokens that open reasoning, which is free of the grammar; empty for none.
        think_end: Tokens that close it; the grammar begins after them.
        is_thinking: Whether the prompt has opened reasoning already.
        max_thinking: Reasoning is closed after so many tokens; None for no bound.
    """

    text: str | None
    think_start: tuple[TokenId, ...] = ()
    think_end: tuple[TokenId, ...] = ()
    is_thinking: bool = False
    max_thinking: int | None = None


@dataclass(frozen=True, slots=True)
class LogitRules:
    """What changes a request's logits before a token is picked, from what came before. The last
    stage keeps their state; `SamplingParams` needs none.

    Attributes:
        logit_bias: Added to the logits of these tokens.
        presence_penalty: Subtracted from each token that was generated.
        frequency_penalty: Subtracted from each token as often as it was generated.
        repetition_penalty: Logits of tokens in the prompt or answer are divided by it where they
            are positive and multiplied where negative; 1 changes nothing.
        repetition_context: How many of the newest tokens that looks at; None for all.
        grammar: What the answer has to match; None for anything.
    """

    logit_bias: tuple[tuple[TokenId, float], ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    repetition_context: int | None = None
    grammar: Grammar | None = None

    @property
    def is_neutral(self) -> bool:
        """Whether nothing changes, so that a request needs no rules."""
        penalties = self.presence_penalty, self.frequency_penalty, self.repetition_penalty
        return not self.logit_bias and penalties == (0, 0, 1) and self.grammar is None


class Pooling(StrEnum):
    """How an embedding is made of the hidden states of a prompt's tokens."""

    LAST = "last"
    MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for, validated and tokenized.

    Attributes:
        prompt: Token ids, at least one, each below the model's vocabulary size.
        max_tokens: Most tokens to generate, at least 1.
        stop: Texts that end the answer; they are never part of it.
        stop_tokens: Token ids that end the answer.
        cache_prompt: Whether it may start from known prefixes, and be kept as one.
        keeps_first_blank: Whether a blank at the answer's beginning is part of its text. mlx-lm
            drops it, but an answer that goes on in the middle of the prompt's text, or has to match
            a grammar, is another without it.
        rules: What changes its logits; None for nothing.
        pooling: Ask for an embedding of the prompt instead of an answer; None for an answer.
    """

    request_id: str
    prompt: tuple[TokenId, ...]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[TokenId] = frozenset()
    cache_prompt: bool = True
    keeps_first_blank: bool = False
    rules: LogitRules | None = None
    pooling: Pooling | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Ask for one token after the last position of a row.

    `position` counts the tokens before the sampled one; with the seed it fixes the random state, so
    that a step computed again samples the same token. `rules_id` names the row's logit rules.
    """

    params: SamplingParams
    position: int
    rules_id: int | None = None


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Work that travels together: a prompt chunk, or a decode step of a lane.

    Attributes:
        cache_id: The sequence's cache, or the lane's.
        tokens: A chunk's token ids; in a decode step one for each row, in the lane's order.
        samples: One for each row of a decode step; empty for a prompt chunk.
        pooling: Ask for the chunk's part of an embedding; None for no vector.
        is_examined: Ask each stage for a digest of what it sends on.
    """

    cache_id: int
    tokens: tuple[TokenId, ...]
    samples: tuple[Sample, ...] = ()
    pooling: Pooling | None = None
    is_examined: bool = False

    @property
    def num_rows(self) -> int:
        """How many sequences it holds a part of."""
        return max(1, len(self.samples))

    @property
    def is_prompt(self) -> bool:
        """Whether it is a prompt's chunk."""
        return not self.samples


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A token the last stage picked.

    `logprob` is the natural logarithm of its probability before logit rules and sampling filters;
    `top` holds (token id, logprob) pairs, likeliest first. `error` says why this row alone could
    not be sampled (its grammar became too complex); `token` means nothing then.
    """

    token: TokenId
    logprob: float | None = None
    top: tuple[tuple[TokenId, float], ...] = ()
    error: str | None = None


NO_TOKEN = SampledToken(-1)


@dataclass(frozen=True, slots=True)
class VisitTiming:
    """What one stage spent on one visit, in microseconds.

    Attributes:
        compute_us: From when the stage could begin with it until its output was there.
        wait_us: How long before that the stage had nothing to do.
        began_us, ended_us: When it could begin and when it ended, on the stage's own monotonic
            clock; 0 where there is none, as in a simulation.
    """

    compute_us: int
    wait_us: int
    began_us: int = 0
    ended_us: int = 0


@dataclass(frozen=True, slots=True)
class StepResult:
    """One trip through all stages, seen from its end.

    `sampled` has one entry per row of a decode step, `timings` one per stage visit, and so has
    `digests` where the micro-batch asked for them. `vector` is a pooled chunk's (see
    `wire.messages.Result`). `back_at` is when it was there, in seconds on the engine's clock.
    """

    step_id: int
    micro_batch: MicroBatch | None
    sampled: tuple[SampledToken, ...]
    error: str | None
    timings: tuple[VisitTiming, ...]
    round_trip_us: int
    vector: bytes | None = None
    digests: tuple[bytes, ...] = ()
    back_at: float = 0.0


class Output(NamedTuple):
    """What a sequence emits per token; the last one carries a finish reason. (A frozen dataclass
    takes ten times as long to make, and there is one for each token of every stream.)

    `num_cached_tokens` of the prompt came from the prefix cache. `stop` is the stop text that ended
    it, if one did; `num_held` characters before that are held back, since they could be the
    beginning of one. Times are seconds on the engine's monotonic clock. A request with `pooling`
    has one output: `embedding` holds its vector, not normalized, and `sampled` is `NO_TOKEN`.
    `compute_us` is the sequence's share of what all stages together computed for it so far, in
    microseconds; the rows of a decode step share it evenly.
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
    stop: str | None = None
    num_held: int = 0
    embedding: tuple[float, ...] | None = None
    compute_us: int = 0


@dataclass(frozen=True, slots=True)
class StageRange:
    """A contiguous range of layers, `start` included, `end` not."""

    start: int
    end: int

    def __str__(self) -> str:
        """As people write it, the last layer included: 2-4."""
        return f"{self.start}-{self.end - 1}"


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

    def num_bytes(self, num_tokens: int) -> int:
        """Bytes of so many tokens, exactly."""
        kept = num_tokens if self.window is None else min(num_tokens, self.window)
        return self.fixed_bytes + self.bytes_per_token * kept

    def held_bytes(self, num_tokens: int) -> int:
        """Bytes that may be held for so many tokens, as the cache grows by blocks."""
        # A cache that grows from an unaligned length keeps what room it had, and rounds up again.
        num_blocks = -(-(num_tokens + 2 * (KV_BLOCK_TOKENS - 1)) // KV_BLOCK_TOKENS)
        return self.num_bytes(num_blocks * KV_BLOCK_TOKENS)


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
