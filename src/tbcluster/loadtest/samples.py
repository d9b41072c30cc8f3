"""What was seen of one request. Pure."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Sample:
    """One request; times are seconds since it was sent.

    Attributes:
        chunks_at: When each piece of the answer came; one may hold several tokens.
        prompt_tokens, output_tokens, cached_tokens: As the server counts them; None where it does
            not say.
        wanted_tokens: How many were asked for.
        joules: That the server says it took, if it does.
        error: Why there is no whole answer.
    """

    sent_at: float
    wanted_tokens: int
    chunks_at: list[float] = field(default_factory=list)
    total_s: float = 0.0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    joules: float | None = None
    error: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether its figures count."""
        return self.error is None and bool(self.chunks_at)

    @property
    def first_token_s(self) -> float:
        """Until the first piece came."""
        return self.chunks_at[0]

    @property
    def num_tokens(self) -> int:
        """That it was given: the server's count, else that of pieces."""
        return len(self.chunks_at) if self.output_tokens is None else self.output_tokens

    @property
    def is_short(self) -> bool:
        """Whether the model ended its answer early."""
        return self.num_tokens < self.wanted_tokens

    @property
    def gaps_s(self) -> list[float]:
        """Between pieces."""
        return [b - a for a, b in zip(self.chunks_at, self.chunks_at[1:], strict=False)]

    @property
    def tokens_per_s(self) -> float | None:
        """After the first token; None where there is but one piece."""
        lasted_s = self.chunks_at[-1] - self.chunks_at[0] if self.chunks_at else 0.0
        return (self.num_tokens - 1) / lasted_s if lasted_s > 0 and self.num_tokens > 1 else None
