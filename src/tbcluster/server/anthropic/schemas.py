"""What the endpoints of the Anthropic dialect accept. A field is honoured or refused by name."""

from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from tbcluster.engine.limits import MAX_INTEGER, MAX_SEED
from tbcluster.server.anthropic.blocks import (
    MAX_SHOWN_KIND,
    CacheControl,
    MessageParam,
    SystemContent,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    joined,
    neutral_messages,
)
from tbcluster.server.ask import Chat, Constraint, Options, Tool, Tools
from tbcluster.server.fields import Body, Listed, Nested, refusal

MAX_STOPS = 64
MAX_STOP_LENGTH = 1000
MAX_TOOLS = 256
# What Anthropic takes for granted where no effort is named.
DEFAULT_EFFORT = "high"


class ToolParam(Nested):
    """A tool that the caller runs."""

    type: Literal["custom"] | None = None
    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.\-]+$")
    description: str | None = None
    input_schema: dict[str, Any]
    cache_control: CacheControl | None = None
    strict: bool | None = None
    # Arguments are streamed as they come in any case.
    eager_input_streaming: bool | None = None
    defer_loading: Literal[False] | None = None
    allowed_callers: Listed[Literal["direct"]] | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        if self.input_schema.get("type") != "object":
            raise refusal("tools", f"the input_schema of {self.name} must be of type object")
        return self

    def neutral(self) -> Tool:
        """The tool in OpenAI's form."""
        function: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            function["description"] = self.description
        if self.strict is not None:
            function["strict"] = self.strict
        return {"type": "function", "function": {**function, "parameters": self.input_schema}}


def _own_tool(value: Any) -> Any:
    """Tools that Anthropic runs have a type of their own."""
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind != "custom":
        raise refusal(
            "tools",
            f"tools of type {kind[:MAX_SHOWN_KIND]!r} are not served: describe your own with name, "
            "description and input_schema",
        )
    return value


OwnTool: TypeAlias = Annotated[ToolParam, BeforeValidator(_own_tool)]


class ToolChoice(Nested):
    """Whether and which tools are called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        if (self.type == "tool") != (self.name is not None):
            raise refusal("tool_choice", "name is needed with type tool, and only there")
        return self

    def neutral(self, offered: tuple[Tool, ...]) -> Tools:
        """The choice among these tools."""
        is_parallel = not self.disable_parallel_tool_use
        match self.type:
            case "auto" | "none":
                return Tools(offered, self.type, None, is_parallel)
            case "any":
                return Tools(offered, "required", None, is_parallel)
            case "tool":
                return Tools(offered, "named", self.name, is_parallel)


class Thinking(Nested):
    """Whether to think before the answer, how long, and whether to show it."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    display: Literal["summarized", "omitted"] | None = None

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if (self.type == "enabled") != (self.budget_tokens is not None):
            raise refusal("thinking", "budget_tokens is needed with type enabled, and only there")
        return self


class JsonFormat(Nested):
    """The schema that an answer has to match."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Nested):
    """How much to reason, and the answer's form."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class Conversation(Body):
    """What a conversation is made of."""

    model: str
    messages: Listed[MessageParam] = Field(min_length=1)
    system: SystemContent | None = None
    tools: Listed[OwnTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None
    cache_control: CacheControl | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    ACCEPTED: ClassVar[frozenset[str]] = frozenset(
        {"metadata", "service_tier", "user_profile_id", "workspace_id"}
    )
    REFUSED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "billing_policy": (None,),
        "compaction": (None,),
        "container": (None,),
        "context_management": (None,),
        "diagnostics": (None,),
        "fallback_credit_token": (None,),
        "fallbacks": (None, []),
        "inference_geo": (None, "global"),
        "mcp_servers": (None, []),
        "speed": (None, "standard"),
        "thread": (None,),
    }

    @model_validator(mode="after")
    def _check_conversation(self) -> Self:
        last = self.messages[-1]
        if any(isinstance(block, ToolUseBlock) for block in last.content):
            raise refusal("messages", "the last message calls a tool: add a tool_result after it")
        thinks = any(isinstance(block, ThinkingBlock) for block in last.content)
        if last.role == "assistant" and thinks and not self.prefill:
            raise refusal("messages", "the last message thinks and says nothing: leave it out")
        if self.prefill and self.thinking and self.thinking.type == "enabled":
            raise refusal(
                "thinking",
                "an answer that was begun by the caller cannot start with thinking: end with a "
                "message of role user, or leave thinking out",
            )
        if self.output_format is not None and self.output_config and self.output_config.format:
            raise refusal("output_format", "choose one of output_format and output_config.format")
        return self

    @property
    def prefill(self) -> str:
        """The beginning of the answer, where the caller has written it."""
        last = self.messages[-1]
        if last.role != "assistant":
            return ""
        text = joined(block for block in last.content if isinstance(block, TextBlock))
        return text if text.strip() else ""

    @property
    def shows_thinking(self) -> bool:
        """Whether thoughts come as text, and not only as the fact that there were some."""
        return self.thinking is None or self.thinking.display != "omitted"

    def chat(self, *, can_reason: bool) -> Chat:
        """The dialect-free conversation.

        Args:
            can_reason: Whether the model can; one that cannot is free to have "adaptive" mean none.
        """
        effort, param = self._effort(can_reason)
        offered = tuple(tool.neutral() for tool in self.tools or ())
        choice = self.tool_choice or ToolChoice(type="auto")
        return Chat(
            messages=neutral_messages(self.system or (), self._turns()),
            tools=choice.neutral(offered),
            effort=effort,
            effort_param=param,
            template_kwargs=self.chat_template_kwargs or {},
            continues_last=bool(self.prefill),
        )

    def constraint(self) -> Constraint | None:
        """What the answer has to match."""
        if self.output_format is not None:
            return Constraint("json_schema", self.output_format.schema_, "output_format")
        if self.output_config is not None and self.output_config.format is not None:
            return Constraint(
                "json_schema", self.output_config.format.schema_, "output_config.format"
            )
        return None

    def _turns(self) -> list[MessageParam]:
        """The messages, without a last one that begins the answer with nothing."""
        is_empty = self.messages[-1].role == "assistant" and not self.prefill
        return self.messages[:-1] if is_empty else self.messages

    def _effort(self, can_reason: bool) -> tuple[str | None, str]:
        """How much to reason, and the field that asks for it."""
        wanted = self.output_config.effort if self.output_config else None
        if self.thinking is None:
            return wanted, "output_config.effort"
        if self.thinking.type == "disabled":
            return "none", "thinking"
        if self.thinking.type == "adaptive" and not can_reason:
            return None, "thinking"
        return wanted or DEFAULT_EFFORT, "thinking"


class CountTokensRequest(Conversation):
    """Body of POST /v1/messages/count_tokens."""


class MessagesRequest(Conversation):
    """Body of POST /v1/messages."""

    max_tokens: int = Field(ge=1, le=MAX_INTEGER)
    stop_sequences: Listed[str] | None = Field(default=None, max_length=MAX_STOPS)
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=MAX_INTEGER)
    stream: bool | None = None
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-MAX_SEED, le=MAX_SEED)
    cache_prompt: bool | None = None

    @model_validator(mode="after")
    def _check_request(self) -> Self:
        if any(not 0 < len(text) <= MAX_STOP_LENGTH for text in self.stop_sequences or ()):
            raise refusal(
                "stop_sequences", f"a stop sequence is empty or longer than {MAX_STOP_LENGTH}"
            )
        budget = self._budget
        if budget is not None and budget >= self.max_tokens:
            raise refusal(
                "thinking",
                f"thinking.budget_tokens is {budget}, it must be below max_tokens "
                f"({self.max_tokens})",
            )
        return self

    def options(self) -> Options:
        """The dialect-free options."""
        return Options(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            seed=self.seed,
            stop=tuple(self.stop_sequences or ()),
            constraint=self.constraint(),
            cache_prompt=self.cache_prompt is not False,
            thinking_budget=self._budget,
        )

    @property
    def _budget(self) -> int | None:
        return self.thinking.budget_tokens if self.thinking else None
