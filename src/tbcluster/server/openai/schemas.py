"""What the endpoints of the OpenAI dialect accept. A field is honoured or refused by name."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tbcluster.engine.limits import MAX_INTEGER
from tbcluster.server.ask import Chat, Constraint, Options, Tools
from tbcluster.server.fields import Listed, Nested, one_by_one, refusal
from tbcluster.server.openai.sampling import (
    MAX_CHOICES,
    MAX_PROMPTS,
    MAX_TOP_LOGPROBS,
    SamplingFields,
)

MAX_MESSAGES = 4096
MAX_TOOLS = 256
TEXT_KINDS = ("text", "input_text", "output_text", "refusal")
COMPLETION_MAX_TOKENS = 16  # the dialect's default for /v1/completions

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(Nested):
    """Options of a streamed answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class GenerationFields(SamplingFields):
    """What chat and text completions share."""

    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_INTEGER)

    ACCEPTED: ClassVar[frozenset[str]] = frozenset(
        {
            "metadata",
            "prompt_cache_key",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "store",
            "user",
        }
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise refusal("stream_options", "stream_options needs stream=true")
        return self

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def options(self, **differing: Any) -> Options:
        """The dialect-free options; `differing` is what the endpoints name in their own ways."""
        own = {"max_tokens": self.max_tokens, "num_choices": self.n or 1}
        return super().options(**{**own, **differing})


class ContentPart(Nested):
    """A part of a message; text is the only kind served."""

    type: Literal["text", "input_text", "output_text", "refusal"]
    text: str | None = None
    refusal: str | None = None
    # Where others keep known prefixes; here all are.
    cache_control: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_kind(cls, part: Any) -> Any:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in TEXT_KINDS:
            raise refusal(
                "messages",
                f"a content part of type {kind[:40]!r} is not served: this model reads text",
            )
        return part

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        if self.words is None:
            raise refusal("messages", f"a content part of type {self.type} has no text")
        return self

    @property
    def words(self) -> str | None:
        """Its text."""
        return self.refusal if self.type == "refusal" else self.text


class FunctionCall(Nested):
    """A function that the assistant called."""

    name: str = Field(min_length=1)
    arguments: str


class ToolCall(Nested):
    """A call in an assistant message."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class ChatMessage(Nested):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Listed[ContentPart] | None = None
    name: str | None = None
    tool_calls: Listed[ToolCall] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    # Clients send answers back as they got them.
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None

    @model_validator(mode="after")
    def _check_role(self) -> Self:
        if self.content is None and not (self.role == "assistant"):
            raise refusal("messages", f"a message of role {self.role} has no content")
        if self.tool_calls is not None and self.role != "assistant":
            raise refusal("messages", "tool_calls belong into messages of role assistant")
        if self.role == "tool" and self.tool_call_id is None:
            raise refusal("messages", "a message of role tool needs its tool_call_id")
        return self

    def as_dict(self) -> dict[str, Any]:
        """The message as chat templates take it, but for the arguments of calls."""
        message: dict[str, Any] = {
            # Chat templates know the newer name "developer" under its older one.
            "role": "system" if self.role == "developer" else self.role,
            "content": self._text(),
        }
        for name in ("name", "tool_call_id", "reasoning_content"):
            if (value := getattr(self, name)) is not None:
                message[name] = value
        if self.tool_calls:
            calls = [call.model_dump(exclude={"index"}) for call in self.tool_calls]
            message["tool_calls"] = calls
        return message

    def _text(self) -> str | None:
        if isinstance(self.content, list):
            return "".join(part.words or "" for part in self.content)
        return self.content if self.content is not None else self.refusal


class FunctionDefinition(Nested):
    """A function that the model may call."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.\-]+$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Nested):
    """A tool of a chat; functions are the only kind."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Nested):
    """The function of a named tool choice."""

    name: str


class NamedChoice(Nested):
    """A tool choice that names its function."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchemaFormat(Nested):
    """The schema of a response format; it is always strict here."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Nested):
    """What shape the answer has."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise refusal(
                "response_format", "json_schema is needed with type json_schema, and only there"
            )
        return self

    def constraint(self) -> Constraint | None:
        """What the answer has to match."""
        if self.type == "json_object":
            return Constraint("json_object", None, "response_format")
        if self.json_schema is not None:
            return Constraint("json_schema", self.json_schema.schema_, "response_format")
        return None


class ChatCompletionRequest(GenerationFields):
    """Body of POST /v1/chat/completions."""

    messages: Listed[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: Listed[FunctionTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    thinking_budget: int | None = Field(default=None, ge=0, le=MAX_INTEGER)
    chat_template_kwargs: dict[str, Any] | None = None

    REFUSED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "audio": (None,),
        "function_call": (None, "none"),
        "functions": (None, []),
        "modalities": (None, ["text"]),
        "moderation": (None,),
        "prediction": (None,),
        "verbosity": (None, "medium"),
        "web_search_options": (None,),
    }

    @model_validator(mode="after")
    def _check_chat(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise refusal("top_logprobs", "top_logprobs needs logprobs=true")
        has_format = self.response_format is not None and self.response_format.constraint()
        if has_format and self.text_constraint() is not None:
            raise refusal("response_format", "choose one of response_format, regex and grammar")
        return self

    def chat(self) -> Chat:
        """The dialect-free conversation."""
        return Chat(
            messages=[message.as_dict() for message in self.messages],
            tools=self._tools(),
            effort=self.reasoning_effort,
            template_kwargs=self.chat_template_kwargs or {},
        )

    def chat_options(self) -> Options:
        """The dialect-free options."""
        constraint = self.response_format.constraint() if self.response_format else None
        return self.options(
            max_tokens=self.max_completion_tokens or self.max_tokens,
            num_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            constraint=constraint or self.text_constraint(),
            thinking_budget=self.thinking_budget,
        )

    def _tools(self) -> Tools:
        offered = tuple(tool.model_dump(exclude_none=True) for tool in self.tools or ())
        is_parallel = self.parallel_tool_calls is not False
        if isinstance(self.tool_choice, NamedChoice):
            return Tools(offered, "named", self.tool_choice.function.name, is_parallel)
        return Tools(offered, self.tool_choice or "auto", None, is_parallel)


class CompletionRequest(GenerationFields):
    """Body of POST /v1/completions."""

    prompt: str | Listed[str] | Listed[int] | Listed[Listed[int]]
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    REFUSED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "best_of": (None, 1),
        "suffix": (None,),
    }

    @model_validator(mode="after")
    def _check_completion(self) -> Self:
        if not self.prompts:
            raise refusal("prompt", "the prompt is empty")
        if len(self.prompts) > MAX_PROMPTS:
            raise refusal("prompt", f"{len(self.prompts)} prompts, at most {MAX_PROMPTS} are taken")
        if self.echo and self.logprobs is not None:
            raise refusal("logprobs", "logprobs of an echoed prompt are not served")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts one by one, as texts or token arrays."""
        return one_by_one(self.prompt)

    def completion_options(self) -> Options:
        """The dialect-free options."""
        return self.options(
            max_tokens=self.max_tokens or COMPLETION_MAX_TOKENS, num_logprobs=self.logprobs
        )
