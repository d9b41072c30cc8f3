"""What a request may ask for. Pure."""

from dataclasses import dataclass

from tbcluster.core import Request, SamplingParams, TokenId
from tbcluster.errors import ContextLengthError, RequestError

MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for, and how many may be open.

    Attributes:
        vocab_size: Token ids must be below it: MLX does not check bounds.
        context_length: Longest prompt plus answer, in tokens; None where the model names none.
        max_running: Sequences with caches in the stages.
        max_waiting: Requests beyond those; more are refused.
    """

    vocab_size: int
    context_length: int | None
    max_running: int = 64
    max_waiting: int = 1024


def validate(request: Request, limits: Limits) -> None:
    """Check every number that the stages will trust.

    Raises:
        RequestError: A field is out of range; `param` names it.
    """
    if not request.prompt:
        raise RequestError("the prompt is empty", "prompt")
    outside = next((t for t in request.prompt if not 0 <= t < limits.vocab_size), None)
    if outside is not None:
        raise RequestError(
            f"token id {outside} is not in the vocabulary of {limits.vocab_size}", "prompt"
        )
    if limits.context_length is not None and len(request.prompt) >= limits.context_length:
        raise ContextLengthError(
            f"the prompt has {len(request.prompt)} tokens, the model's context is "
            f"{limits.context_length}: shorten the prompt",
            "prompt",
        )
    if request.max_tokens < 1:
        raise _out_of_range("max_tokens", request.max_tokens, "1 or more")
    if "" in request.stop:
        raise RequestError("a stop text is empty", "stop")
    _validate_sampling(request.sampling)


def clipped_max_tokens(prompt: tuple[TokenId, ...], wanted: int, limits: Limits) -> int:
    """`wanted`, or what the context leaves after the prompt if that is less."""
    if limits.context_length is None:
        return wanted
    return min(wanted, max(1, limits.context_length - len(prompt)))


def _validate_sampling(params: SamplingParams) -> None:
    # Written so that NaN is out of every range.
    if not 0 <= params.temperature < float("inf"):
        raise _out_of_range("temperature", params.temperature, "0 or more")
    if not 0 < params.top_p <= 1:
        raise _out_of_range("top_p", params.top_p, "above 0 and at most 1")
    if not 0 <= params.min_p <= 1:
        raise _out_of_range("min_p", params.min_p, "between 0 and 1")
    if params.top_k < 0:
        raise _out_of_range("top_k", params.top_k, "0 or more")
    if not -MAX_SEED <= params.seed <= MAX_SEED:
        raise _out_of_range("seed", params.seed, "a 64-bit number")
    if params.num_logprobs is not None and params.num_logprobs < 0:
        raise _out_of_range("num_logprobs", params.num_logprobs, "0 or more")


def _out_of_range(param: str, value: object, allowed: str) -> RequestError:
    return RequestError(f"{param} is {value}, it must be {allowed}", param)
