"""One generation in progress."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tbcluster.core import (
    NO_TOKEN,
    FinishReason,
    Output,
    Pooling,
    Request,
    Sample,
    SampledToken,
    TokenId,
)
from tbcluster.engine.detokenizer import TextStream
from tbcluster.engine.embedding import PooledEmbedding
from tbcluster.engine.prefix_index import PrefixEntry
from tbcluster.errors import TbclusterError

# Called in the engine's thread with each output, and at most once, last, with an error.
Listener = Callable[[Output | TbclusterError], None]


@dataclass(slots=True, eq=False)
class Sequence:
    """A request's tokens so far and how far they have been handed to the pipeline.

    Attributes:
        arrival: Smaller for those that came earlier.
        text: None until it starts.
        tokens: The prompt, then what was generated.
        cache_id: Its own cache on the stages; None while it waits, and as the row of a lane.
        num_scheduled: How many tokens its cache holds, counting steps on their way.
        num_in_flight: Micro-batches of this sequence that have not come back.
        fork: Where other prompts are known to differ from this one, if a copy of its cache is to be
            kept there.
        due: Prompt chunks go in this order (see `Scheduler`).
        num_cached_tokens: How much of the prompt a known prefix spared before the first token came.
        num_reused: How many tokens its cache began with the last time that it started.
        uses_prefixes: Whether it may start from a known prefix.
        leaves_prefixes: Whether it may become one.
        embedding: What is known of its embedding, if one was asked for instead of tokens.
        started_from: The known prefix that it started from, until that has proven itself.
        published: Copies of its cache that others may start from, not proven until the steps they
            hold have succeeded.
        num_failures: How often a step of it has failed.
        num_in_vain: How often it has started over since it was last given a token.
        rules_id: Its logit rules on the last stage, while it takes part and has any.
        compute_us: Its share of what the stages have computed, also of steps that were in vain.
        num_steps: That it took part in and that came back.
        is_probe: It runs while others are held back, and only in the epoch that it came in.
    """

    request: Request
    listener: Listener
    arrival: int
    text: TextStream | None = None
    tokens: list[TokenId] = field(default_factory=list)
    cache_id: int | None = None
    num_scheduled: int = 0
    num_in_flight: int = 0
    fork: int | None = None
    due: int = 0
    started_at: float = 0.0
    first_token_at: float = 0.0
    num_cached_tokens: int = 0
    num_reused: int = 0
    uses_prefixes: bool = True
    leaves_prefixes: bool = True
    embedding: PooledEmbedding | None = None
    started_from: PrefixEntry | None = None
    published: list[PrefixEntry] = field(default_factory=list)
    num_failures: int = 0
    num_in_vain: int = 0
    rules_id: int | None = None
    compute_us: int = 0
    num_steps: int = 0
    is_probe: bool = False

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)
        self.uses_prefixes = self.leaves_prefixes = self.request.cache_prompt
        if (pooling := self.request.pooling) is not None:
            self.embedding = PooledEmbedding(pooling)
            # What an embedding leaves nobody goes on from; a mean needs every token's part.
            self.leaves_prefixes = False
            self.uses_prefixes = self.uses_prefixes and pooling is Pooling.LAST

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def num_ready(self) -> int:
        """Tokens that are known and not yet handed to the pipeline."""
        return len(self.tokens) - self.num_scheduled

    @property
    def num_prefill(self) -> int:
        """Tokens to compute before the one that the next token is sampled after (which is a decode
        step, as in mlx-lm, so that both do the same arithmetic). An embedding takes them all."""
        return self.num_ready - (self.embedding is None)

    def start_over(self) -> None:
        """Its cache is gone: all its tokens have to be computed again."""
        self.num_in_vain += 1
        self.cache_id = None
        self.num_scheduled = 0
        self.num_in_flight = 0
        self.started_from = None
        self.published.clear()
        self.rules_id = None
        if self.embedding is not None:
            self.embedding.clear()

    def next_sample(self) -> Sample:
        """What to ask of the step that takes its newest token."""
        return Sample(self.request.sampling, len(self.tokens), self.rules_id)

    def finish_reason_after(self, token: TokenId) -> FinishReason | None:
        """Whether `token`, just appended, ends the sequence."""
        if token in self.request.stop_tokens:
            return FinishReason.STOP
        if self.num_generated >= self.request.max_tokens:
            return FinishReason.LENGTH
        return None

    def embedding_output(self, vector: tuple[float, ...], now: float) -> Output:
        """What to tell the listener about an embedding, in the end and only then."""
        output = self.output("", NO_TOKEN, now, FinishReason.STOP, 0)
        return output._replace(first_token_at=now, embedding=vector)

    def output(
        self,
        text: str,
        sampled: SampledToken,
        now: float,
        finish: FinishReason | None,
        count: int,
        stop: str | None = None,
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
            num_cached_tokens=self.num_cached_tokens,
            finish_reason=finish,
            stop=stop,
            num_held=self.text.num_held if self.text is not None else 0,
            compute_us=self.compute_us,
        )
