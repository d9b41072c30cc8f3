"""From a validated HTTP body to immutable requests: chat template, tokens, sampling defaults."""

from collections.abc import Mapping, Sequence
from typing import Any

from tbcluster.cluster.cluster import Cluster
from tbcluster.core import Request, SamplingParams, TokenId
from tbcluster.engine.limits import MAX_INTEGER
from tbcluster.errors import RequestError
from tbcluster.generation import encode_prompt, new_seed
from tbcluster.server.schemas import GenerationFields, Message

MIN_TOP_P = 1e-9
# The dialect's own default, for models whose generation_config.json names none.
DEFAULT_TEMPERATURE = 1.0


def message_turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as chat templates take them."""
    return [_turn(message) for message in messages]


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
            max_tokens=max_tokens or MAX_INTEGER,
            sampling=_sampling(cluster, body, seed + index),
            stop=body.stops,
            cache_prompt=body.cache_prompt,
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
    defaults = model_defaults(cluster.folder.generation_config)

    def pick(name: str) -> Any:
        value = getattr(body, name)
        return getattr(defaults, name) if value is None else value

    return SamplingParams(
        temperature=pick("temperature"),
        top_p=pick("top_p"),
        top_k=pick("top_k"),
        min_p=pick("min_p"),
        seed=seed,
    )


def model_defaults(generation_config: Mapping[str, Any]) -> SamplingParams:
    """What the model's generation_config.json suggests; values out of range suggest nothing."""

    def suggested(name: str, low: float, high: float, otherwise: float) -> float:
        value = generation_config.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
            return value
        return otherwise

    greedy = generation_config.get("do_sample") is False
    temperature = suggested("temperature", 0, 2, DEFAULT_TEMPERATURE)
    return SamplingParams(
        temperature=0.0 if greedy else temperature,
        top_p=suggested("top_p", MIN_TOP_P, 1, 1.0),
        top_k=int(suggested("top_k", 0, MAX_INTEGER, 0)),
        min_p=suggested("min_p", 0, 1, 0.0),
    )
