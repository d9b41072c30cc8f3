"""From a validated HTTP body to immutable requests: chat template, tokens, sampling defaults."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from tbcluster.cluster.cluster import Cluster
from tbcluster.core import Request, SamplingParams, TokenId
from tbcluster.errors import RequestError
from tbcluster.generation import encode_prompt, new_seed
from tbcluster.server.schemas import GenerationFields, Message

NO_LIMIT = 1 << 30
# The dialect's own default, for models whose generation_config.json names none.
DEFAULT_TEMPERATURE = 1.0


def chat_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[TokenId]:
    """Apply the model's chat template.

    Raises:
        RequestError: The model has no template, or the template refuses these messages.
    """
    if not tokenizer.has_chat_template:
        raise RequestError("this model has no chat template: use /v1/completions", "messages")
    turns = [_turn(message) for message in messages]
    try:
        return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True))
    except (TemplateError, ValueError, TypeError) as error:
        raise RequestError(
            f"the model's chat template refuses these messages: {error}", "messages"
        ) from error


def completion_prompts(
    tokenizer: Any, prompts: Sequence[str | list[TokenId]]
) -> list[list[TokenId]]:
    """Token ids of every prompt."""
    if not prompts:
        raise RequestError("the prompt is empty", "prompt")
    return [encode_prompt(tokenizer, prompt) for prompt in prompts]


def make_requests(
    cluster: Cluster, prompts: list[list[TokenId]], body: GenerationFields, max_tokens: int | None
) -> list[Request]:
    """`n` requests for each prompt; a seed gives each of them a seed of its own."""
    seed = new_seed() if body.seed is None else body.seed
    return [
        cluster.make_request(
            prompt,
            max_tokens=max_tokens or NO_LIMIT,
            sampling=_sampling(cluster, body, seed + index),
            stop=body.stops,
        )
        for prompt in prompts
        for index in range(body.n)
    ]


def _turn(message: Message) -> dict[str, str]:
    # Chat templates know the newer name "developer" under its older one.
    role = "system" if message.role == "developer" else message.role
    turn = {"role": role, "content": message.text}
    return turn if message.name is None else {**turn, "name": message.name}


def _sampling(cluster: Cluster, body: GenerationFields, seed: int) -> SamplingParams:
    defaults = cluster.folder.generation_config
    greedy = defaults.get("do_sample") is False
    temperature = 0.0 if greedy else defaults.get("temperature", DEFAULT_TEMPERATURE)
    return SamplingParams(
        temperature=_first(body.temperature, temperature),
        top_p=_first(body.top_p, defaults.get("top_p"), 1.0),
        top_k=_first(body.top_k, defaults.get("top_k"), 0),
        min_p=_first(body.min_p, defaults.get("min_p"), 0.0),
        seed=seed,
    )


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
