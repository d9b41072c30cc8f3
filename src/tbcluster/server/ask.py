"""What every dialect's request comes down to: a chat or prompts, and options. Data only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tbcluster.core import TokenId

# OpenAI's own form: {"type": "function", "function": {"name", "description", "parameters"}}.
Tool = dict[str, Any]
# OpenAI's own form: role, content as text, tool_calls, tool_call_id, reasoning_content.
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer has to match.

    Attributes:
        value: The schema, pattern or grammar; None for a JSON object of any shape.
        param: The request's field that asks for it, for errors.
    """

    kind: Literal["json_object", "json_schema", "regex", "grammar"]
    value: Any
    param: str


@dataclass(frozen=True, slots=True)
class Tools:
    """Functions that the model may call.

    Attributes:
        choice: Whether it may ("auto"), must ("required", or "named": the one called `name`) or
            must not ("none") call one.
        is_parallel: Whether one answer may hold several calls.
    """

    offered: tuple[Tool, ...] = ()
    choice: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None
    is_parallel: bool = True


NO_TOOLS = Tools()


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation up to the assistant's next turn.

    Attributes:
        param: The request's field that it is made of, for errors.
        effort: How much to reason, in OpenAI's words, or None for the template's own default.
        effort_param: The request's field that asks for it, for errors.
        template_kwargs: Passed on to the chat template as they are.
        continues_last: Whether the last message is the beginning of the assistant's answer.
    """

    messages: Sequence[Message]
    param: str = "messages"
    tools: Tools = NO_TOOLS
    effort: str | None = None
    effort_param: str = "reasoning_effort"
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    continues_last: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """How to answer. None is whatever the model's own generation_config.json suggests.

    Attributes:
        max_tokens: None for as many as context and KV memory leave.
        num_choices: Answers for each prompt.
        num_logprobs: None for none, else how many alternatives to report with each token's own.
        ignores_eos: Whether to go on past the model's end-of-text tokens.
        cache_prompt: Whether prompts may start from known prefixes, and be kept as ones.
        thinking_budget: Most tokens of reasoning; None for no bound of its own.
    """

    max_tokens: int | None = None
    num_choices: int = 1
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    num_logprobs: int | None = None
    logit_bias: tuple[tuple[TokenId, float], ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    repetition_context: int | None = None
    constraint: Constraint | None = None
    ignores_eos: bool = False
    cache_prompt: bool = True
    thinking_budget: int | None = None
