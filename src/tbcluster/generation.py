"""Generation in mlx-lm's manner: what the synchronous and the asynchronous API share."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from tbcluster.answers.protected import encode_chat
from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.streams import PATIENT, Patience
from tbcluster.core import (
    DEFAULT_MAX_TOKENS,
    LogitRules,
    Output,
    Request,
    SampledToken,
    SamplingParams,
    TokenId,
)
from tbcluster.engine.limits import MAX_SEED
from tbcluster.errors import RequestError

# mlx-lm's own default.
REPETITION_CONTEXT = 20


class GenerateOptions(TypedDict, total=False):
    """What `generate` and `stream_generate` take.

    Attributes:
        max_tokens: Most tokens to generate (256).
        temperature: 0 (the default) is greedy.
        top_p: Keep the smallest set of tokens with this probability (1: all).
        top_k: Keep the k likeliest tokens (0: all).
        min_p: Drop tokens below this share of the likeliest one's probability (0: none).
        seed: Equal seeds give equal text; None (the default) draws one.
        stop: A text, or several, that end the answer.
        num_logprobs: Report each token's logprob and this many alternatives.
        cache_prompt: Whether the prompt may start from known prefixes, and be kept as one (True).
        logit_bias: Token ids and what is added to their logits, -100 to 100.
        presence_penalty: Taken from the logits of tokens in the answer, -2 to 2 (0).
        frequency_penalty: Taken as often as they are there, -2 to 2 (0).
        repetition_penalty: Makes tokens of prompt and answer less likely where above 1 (1).
        repetition_context_size: How many of the newest tokens it looks at (20); None for all.
        json_schema: The answer is JSON that this schema admits.
        regex: The answer matches this expression as a whole.
        grammar: The answer is a text of this grammar (llguidance's Lark, or GBNF).
        timeout_s: Most seconds until the last token, after which OutOfTimeError is raised; None
            (the default) for any time.
    """

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    stop: str | Sequence[str]
    num_logprobs: int | None
    cache_prompt: bool
    logit_bias: Mapping[TokenId, float] | None
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    repetition_context_size: int | None
    json_schema: dict[str, Any] | None
    regex: str | None
    grammar: str | None
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class GenerationResponse:
    """One token, with the fields of mlx-lm's GenerationResponse.

    Attributes:
        text: The next piece of text; may be empty.
        token: The token id.
        logprobs: The token's logprob and alternatives if asked for. (mlx-lm hands out the whole
            distribution; here it stays on the last stage.)
        from_draft: Whether a draft model proposed the token.
        cached_tokens: How many of the prompt's tokens a known prefix spared.
        prompt_tps: Prompt tokens per second.
        generation_tps: Generated tokens per second.
        peak_memory: Most memory that any one stage held while it loaded, in GB.
        finish_reason: "stop" or "length" with the last token, else None.
    """

    text: str
    token: TokenId
    logprobs: SampledToken | None
    from_draft: bool
    prompt_tokens: int
    cached_tokens: int
    prompt_tps: float
    generation_tokens: int
    generation_tps: float
    peak_memory: float
    finish_reason: str | None = None


def build_request(
    cluster: Cluster, prompt: str | Sequence[TokenId], options: GenerateOptions
) -> Request:
    """A request from what the Python API was given.

    Raises:
        RequestError: An option is unknown, or the prompt cannot be encoded.
    """
    unknown = sorted(set(options) - GenerateOptions.__annotations__.keys())
    if unknown:
        known = ", ".join(sorted(GenerateOptions.__annotations__))
        raise RequestError(f"there is no option {unknown[0]!r}: use {known}", unknown[0])
    seed = options.get("seed")
    stop = options.get("stop", ())
    sampling = SamplingParams(
        temperature=options.get("temperature", 0.0),
        top_p=options.get("top_p", 1.0),
        top_k=options.get("top_k", 0),
        min_p=options.get("min_p", 0.0),
        seed=new_seed() if seed is None else seed,
        num_logprobs=options.get("num_logprobs"),
    )
    tokens = encode_prompt(cluster.tokenizer, prompt)
    rules = _rules(cluster, tokens, options)
    request = cluster.make_request(
        tokens,
        max_tokens=options.get("max_tokens", DEFAULT_MAX_TOKENS),
        sampling=sampling,
        stop=[stop] if isinstance(stop, str) else stop,
        cache_prompt=options.get("cache_prompt", True),
        rules=rules,
    )
    # What has to match a grammar does so to the character.
    return replace(request, keeps_first_blank=rules is not None and rules.grammar is not None)


def patience_of(options: GenerateOptions) -> Patience:
    """How long a request of these options may take.

    Raises:
        RequestError: `timeout_s` is no time.
    """
    timeout_s = options.get("timeout_s")
    if timeout_s is None:
        return PATIENT
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not timeout_s > 0:
        raise RequestError(f"timeout_s is {timeout_s!r}, it must be more than 0", "timeout_s")
    return Patience(answer_s=timeout_s)


def logit_rules(rules: LogitRules) -> LogitRules | None:
    """Rules for a request, which has none where nothing changes."""
    return None if rules.is_neutral else rules


def _rules(
    cluster: Cluster, prompt: Sequence[TokenId], options: GenerateOptions
) -> LogitRules | None:
    text = _grammar(cluster, options)
    bias = options.get("logit_bias") or {}
    if not isinstance(bias, Mapping):
        raise RequestError(
            f"logit_bias is {bias!r}, it must map token ids to numbers", "logit_bias"
        )
    return logit_rules(
        LogitRules(
            logit_bias=tuple(bias.items()),
            presence_penalty=options.get("presence_penalty", 0.0),
            frequency_penalty=options.get("frequency_penalty", 0.0),
            repetition_penalty=options.get("repetition_penalty", 1.0),
            repetition_context=options.get("repetition_context_size", REPETITION_CONTEXT),
            grammar=cluster.grammars.for_prompt(text, prompt) if text is not None else None,
        )
    )


def _grammar(cluster: Cluster, options: GenerateOptions) -> str | None:
    given = [name for name in ("json_schema", "regex", "grammar") if options.get(name) is not None]
    if len(given) > 1:
        raise RequestError(f"{given[0]} and {given[1]} exclude each other: use one", given[1])
    if (schema := options.get("json_schema")) is not None:
        return cluster.grammars.json_schema(schema)
    if (pattern := options.get("regex")) is not None:
        return cluster.grammars.regex(pattern)
    lark = options.get("grammar")
    return cluster.grammars.lark(lark) if lark is not None else None


def encode_prompt(tokenizer: Any, prompt: str | Sequence[TokenId]) -> list[TokenId]:
    """Token ids; a text that begins with the tokenizer's own first token is not given another.

    Raises:
        RequestError: The text holds something that is no character (a lone surrogate).
    """
    if not isinstance(prompt, str):
        return list(prompt)
    bos = tokenizer.bos_token
    add_special_tokens = bos is None or not prompt.startswith(bos)
    check_text(prompt, "prompt")
    return list(tokenizer.encode(prompt, add_special_tokens=add_special_tokens))


def chat_prompt(tokenizer: Any, turns: Sequence[Mapping[str, str]]) -> list[TokenId]:
    """Token ids of a chat, up to where the assistant's next turn begins.

    Args:
        turns: Messages with `role` and `content`.

    Raises:
        RequestError: The model has no chat template, or its template refuses these messages.
    """
    return encode_chat(tokenizer, turns)


def check_text(text: str, param: str) -> None:
    """Raises: RequestError when `text` cannot be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{param} is no valid text: {error}", param) from error


def new_seed() -> int:
    """A seed for a request that names none."""
    return secrets.randbelow(MAX_SEED)


def to_response(cluster: Cluster, request: Request, output: Output) -> GenerationResponse:
    """An engine's output with the rates that mlx-lm reports."""
    prompt_s = output.first_token_at - output.started_at
    generation_s = output.emitted_at - output.first_token_at
    wants_logprobs = request.sampling.num_logprobs is not None
    return GenerationResponse(
        text=output.text,
        token=output.sampled.token,
        logprobs=output.sampled if wants_logprobs else None,
        from_draft=False,
        prompt_tokens=output.num_prompt_tokens,
        cached_tokens=output.num_cached_tokens,
        prompt_tps=_rate(output.num_prompt_tokens, prompt_s),
        generation_tokens=output.num_generated_tokens,
        generation_tps=_rate(output.num_generated_tokens, generation_s),
        peak_memory=cluster.peak_memory_bytes / 1e9,
        finish_reason=output.finish_reason,
    )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
