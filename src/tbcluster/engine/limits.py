"""What a request may ask for. Pure."""

from dataclasses import dataclass

from tbcluster.core import MAX_GRAMMAR_CHARS, Grammar, LogitRules, Request, SamplingParams, TokenId
from tbcluster.errors import ContextLengthError, RequestError

# What fits the wire's integers, with room for the choices of one request to count up from.
MAX_SEED = 2**62
MAX_INTEGER = 2**31 - 1
MAX_TEMPERATURE = 100.0
MAX_LOGIT_BIAS = 100.0
MAX_PENALTY = 2.0
# From above 0: logits are divided by it, and must stay finite.
REPETITION_PENALTIES = 0.01, 100.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for, and how many may be open.

    Attributes:
        vocab_size: Token ids must be below it: MLX does not check bounds.
        context_length: Longest prompt plus answer, in tokens; None where the model names none.
        max_running: Sequences with caches in the stages.
        max_waiting: Requests beyond those; more are refused.
        kv_tokens: Longest sequence that the KV memory holds; None for no limit.
        kv_note: The numbers behind it, for the user.
        no_embeddings_because: Why the model gives none; None where it does.
    """

    vocab_size: int
    context_length: int | None
    max_running: int = 256
    max_waiting: int = 1024
    kv_tokens: int | None = None
    kv_note: str = ""
    no_embeddings_because: str | None = None

    @property
    def longest(self) -> int | None:
        """Longest prompt plus answer that can be served, in tokens."""
        known = [n for n in (self.context_length, self.kv_tokens) if n is not None]
        return min(known, default=None)


def validate(request: Request, limits: Limits) -> None:
    """Check every number that the stages will trust.

    Raises:
        RequestError: A field is out of range; `param` names it.
    """
    if not request.prompt:
        raise RequestError("the prompt is empty", "prompt")
    strange = next((t for t in request.prompt if type(t) is not int), None)
    if strange is not None:
        raise RequestError(f"{strange!r} in the prompt is no token id", "prompt")
    outside = next((t for t in request.prompt if not 0 <= t < limits.vocab_size), None)
    if outside is not None:
        raise RequestError(
            f"token id {outside} is not in the vocabulary of {limits.vocab_size}", "prompt"
        )
    if request.pooling is not None and limits.no_embeddings_because is not None:
        raise RequestError(
            f"this model gives no embeddings: {limits.no_embeddings_because}", "model"
        )
    _check_room(request, limits)
    if "" in request.stop:
        raise RequestError("a stop text is empty", "stop")
    _validate_sampling(request.sampling, limits.vocab_size)
    if request.rules is not None:
        _validate_rules(request.rules, limits.vocab_size)


def _check_room(request: Request, limits: Limits) -> None:
    num_prompt = len(request.prompt)
    # After an embedding's prompt nothing comes; any other needs room for one token at least.
    is_embedding = request.pooling is not None
    least, most = (0, 0) if is_embedding else (1, request.max_tokens)
    if limits.context_length is not None and num_prompt + least > limits.context_length:
        raise ContextLengthError(
            f"the prompt has {num_prompt} tokens, the model's context is "
            f"{limits.context_length}: shorten the prompt",
            "prompt",
        )
    if not is_embedding:
        _check_integer("max_tokens", most, 1, MAX_INTEGER)
    if limits.kv_tokens is not None and num_prompt + most > limits.kv_tokens:
        new = "" if is_embedding else f" and up to {most} new ones"
        raise ContextLengthError(
            f"{num_prompt} prompt tokens{new} do not fit the KV memory, which holds "
            f"{limits.kv_tokens} of one sequence ({limits.kv_note})",
            "prompt",
        )


def shortage(num_tokens: int, limits: Limits) -> str | None:
    """What is missing for a cache of so many tokens; None if nothing is. Requests that `validate`
    has seen never lack anything until other limits hold: those of fewer nodes."""
    if limits.kv_tokens is None or num_tokens <= limits.kv_tokens:
        return None
    return (
        f"it takes KV memory for {num_tokens} tokens, the nodes that are left have "
        f"{limits.kv_tokens} for one request ({limits.kv_note})"
    )


def clipped_max_tokens(prompt: tuple[TokenId, ...], wanted: int, limits: Limits) -> int:
    """`wanted`, or what context and KV memory leave after the prompt if that is less."""
    if limits.longest is None:
        return wanted
    return min(wanted, max(1, limits.longest - len(prompt)))


def _validate_sampling(params: SamplingParams, vocab_size: int) -> None:
    _check_number("temperature", params.temperature, 0, MAX_TEMPERATURE)
    _check_number("top_p", params.top_p, 0, 1)
    if params.top_p == 0:
        raise _out_of_range("top_p", params.top_p, "above 0")
    _check_number("min_p", params.min_p, 0, 1)
    _check_integer("top_k", params.top_k, 0, MAX_INTEGER)
    _check_integer("seed", params.seed, -MAX_SEED, MAX_SEED)
    if params.num_logprobs is not None:
        _check_integer("num_logprobs", params.num_logprobs, 0, vocab_size)


def _validate_rules(rules: LogitRules, vocab_size: int) -> None:
    for token, bias in rules.logit_bias:
        if type(token) is not int or not 0 <= token < vocab_size:
            raise RequestError(
                f"token id {token!r} is not in the vocabulary of {vocab_size}", "logit_bias"
            )
        _check_number("logit_bias", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
    _check_number("presence_penalty", rules.presence_penalty, -MAX_PENALTY, MAX_PENALTY)
    _check_number("frequency_penalty", rules.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)
    least, most = REPETITION_PENALTIES
    _check_number("repetition_penalty", rules.repetition_penalty, least, most)
    if rules.repetition_context is not None:
        _check_integer("repetition_context_size", rules.repetition_context, 1, MAX_INTEGER)
    if rules.grammar is not None:
        _validate_grammar(rules.grammar, vocab_size)


def _validate_grammar(grammar: Grammar, vocab_size: int) -> None:
    if len(grammar.text or "") > MAX_GRAMMAR_CHARS:
        raise RequestError(
            f"the grammar has {len(grammar.text or '')} characters, at most {MAX_GRAMMAR_CHARS} "
            "are allowed: make it smaller",
            "grammar",
        )
    markers = (*grammar.think_start, *grammar.think_end)
    if not all(type(token) is int and 0 <= token < vocab_size for token in markers):
        raise RequestError("a marker of reasoning is not in the vocabulary", "grammar")
    if (grammar.think_start or grammar.is_thinking) and not grammar.think_end:
        raise RequestError("reasoning that nothing closes has no answer behind it", "grammar")
    if grammar.max_thinking is not None:
        _check_integer("thinking_budget", grammar.max_thinking, 0, MAX_INTEGER)


def _check_integer(param: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise _out_of_range(param, value, f"a whole number from {low} to {high}")


def _check_number(param: str, value: object, low: float, high: float) -> None:
    # Written so that NaN is out of every range.
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise _out_of_range(param, value, f"a number from {low:g} to {high:g}")


def _out_of_range(param: str, value: object, allowed: str) -> RequestError:
    return RequestError(f"{param} is {value!r}, it must be {allowed}", param)
