"""One generation in progress."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tbcluster.core import (
    FinishReason,
    MicroBatch,
    Output,
    Request,
    Sample,
    SampledToken,
    TokenId,
)
from tbcluster.engine.detokenizer import TextStream
from tbcluster.errors import TbclusterError

# Called in the engine's thread with each output, and at most once, last, with an error.
Listener = Callable[[Output | TbclusterError], None]


@dataclass(slots=True)
class Sequence:
    """A request's tokens so far and how far they have been handed to the pipeline.

    Attributes:
        tokens: The prompt, then what was generated.
        num_scheduled: How many of them the pipeline has been given.
        num_in_flight: Micro-batches of this sequence that have not come back.
    """

    request: Request
    cache_id: int
    listener: Listener
    text: TextStream
    started_at: float
    tokens: list[TokenId] = field(default_factory=list)
    num_scheduled: int = 0
    num_in_flight: int = 0
    first_token_at: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def num_ready(self) -> int:
        """Tokens that are known and not yet handed to the pipeline."""
        return len(self.tokens) - self.num_scheduled

    def next_micro_batch(self, chunk_tokens: int) -> MicroBatch:
        """A chunk of the prompt, or its last token alone as the first decode step (as in mlx-lm,
        so that both do the same arithmetic); later the newest token."""
        size = min(chunk_tokens, self.num_ready - 1) or 1
        chunk = tuple(self.tokens[self.num_scheduled : self.num_scheduled + size])
        if self.num_ready > 1:
            return MicroBatch(self.cache_id, chunk)
        return MicroBatch(self.cache_id, chunk, Sample(self.request.sampling, len(self.tokens)))

    def finish_reason_after(self, token: TokenId) -> FinishReason | None:
        """Whether `token`, just appended, ends the sequence."""
        if token in self.request.stop_tokens:
            return FinishReason.STOP
        if self.num_generated >= self.request.max_tokens:
            return FinishReason.LENGTH
        return None

    def output(
        self, text: str, sampled: SampledToken, now: float, finish: FinishReason | None, count: int
    ) -> Output:
        """What to tell the listener about token number `count`."""
        return Output(
            text=text,
            sampled=sampled,
            num_prompt_tokens=len(self.request.prompt),
            num_generated_tokens=count,
            started_at=self.started_at,
            first_token_at=self.first_token_at,
            emitted_at=now,
            finish_reason=finish,
        )
