"""What POST /v1/responses accepts. A field is honoured or refused by name."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tbcluster.engine.limits import MAX_INTEGER
from tbcluster.server.ask import Constraint, Options, Tool, Tools
from tbcluster.server.fields import Listed, Nested, refusal
from tbcluster.server.openai.sampling import MAX_TOP_LOGPROBS, SamplingFields
from tbcluster.server.openai.schemas import MAX_MESSAGES, MAX_TOOLS, Effort, FunctionDefinition
from tbcluster.server.responses.input_items import Input, ReferenceItem

MAX_PAIRS = 16
MAX_KEY_LENGTH = 64
MAX_VALUE_LENGTH = 512
LOGPROBS = "message.output_text.logprobs"
# Reasoning is answered in the open and taken back so; there is nothing to encrypt.
ENCRYPTED_REASONING = "reasoning.encrypted_content"


class ResponseTool(FunctionDefinition):
    """A function that the model may call."""

    type: Literal["function"]
    defer_loading: Literal[False] | None = None
    allowed_callers: None = None
    output_schema: None = None

    def as_tool(self) -> Tool:
        """The tool in the neutral form, which is that of chats."""
        definition = self.model_dump(
            include={"name", "description", "parameters", "strict"}, exclude_none=True
        )
        return {"type": "function", "function": definition}


def _function_tools(value: Any) -> Any:
    """Refuses the tools that OpenAI's own servers run."""
    for tool in value if isinstance(value, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind != "function":
            raise refusal(
                "tools", f"tools: {kind[:40]!r} is not served, functions are the only kind"
            )
    return value


class FunctionChoice(Nested):
    """A function among the tools."""

    type: Literal["function"]
    name: str


class AllowedTools(Nested):
    """A tool choice that leaves some of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Listed[FunctionChoice] = Field(min_length=1, max_length=MAX_TOOLS)


def _known_choice(value: Any) -> Any:
    """Refuses the choices of tools that are not served."""
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind not in ("function", "allowed_tools"):
        raise refusal("tool_choice", f"tool_choice: a choice of type {kind[:40]!r} is not served")
    return value


class TextFormat(Nested):
    """What shape the answer has; a schema is always strict here."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise refusal(
                "text.format",
                "text.format: a schema is needed with type json_schema, and only there",
            )
        return self

    def constraint(self) -> Constraint | None:
        """What the answer has to match."""
        if self.type == "text":
            return None
        return Constraint(self.type, self.schema_, "text.format")


class TextConfig(Nested):
    """How the answer's text is to be."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningConfig(Nested):
    """How to reason. The reasoning itself is answered, so there is no summary of it."""

    effort: Effort | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class ResponseStreamOptions(Nested):
    """Options of a streamed answer."""

    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(SamplingFields):
    """Body of POST /v1/responses."""

    input: Input = Field(min_length=1, max_length=MAX_MESSAGES)
    instructions: str | None = None
    previous_response_id: str | None = Field(default=None, min_length=1)
    store: bool | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=MAX_PAIRS)
    max_output_tokens: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    include: Listed[str] | None = None
    text: TextConfig | None = None
    tools: Annotated[Listed[ResponseTool] | None, BeforeValidator(_function_tools)] = Field(
        default=None, max_length=MAX_TOOLS
    )
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | FunctionChoice | AllowedTools | None,
        BeforeValidator(_known_choice),
    ] = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningConfig | None = None
    stream_options: ResponseStreamOptions | None = None
    truncation: Literal["disabled"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    ACCEPTED: ClassVar[frozenset[str]] = frozenset(
        {
            "client_metadata",
            "prompt_cache_key",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "user",
        }
    )
    REFUSED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "background": (None, False),
        "context_management": (None, []),
        "conversation": (None,),
        "max_tool_calls": (None,),
        "moderation": (None,),
        "prompt": (None,),
        "prompt_cache_options": (None, {}, {"mode": "implicit"}),
    }

    @model_validator(mode="after")
    def _check_response(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise refusal("stream_options", "stream_options needs stream=true")
        for name in self.include or ():
            if name not in (LOGPROBS, ENCRYPTED_REASONING):
                raise refusal("include", f"include: {name[:80]!r} is not served: leave it out")
        if self.top_logprobs and not self.shows_logprobs:
            raise refusal("top_logprobs", f"top_logprobs needs {LOGPROBS!r} in include")
        if self._format_constraint() is not None and self.text_constraint() is not None:
            raise refusal("text.format", "choose one of text.format, regex and grammar")
        self._check_metadata()
        self._check_allowed()
        return self

    @property
    def is_stored(self) -> bool:
        """Whether the response is kept, to be continued."""
        return self.store is not False

    @property
    def shows_logprobs(self) -> bool:
        """Whether the answer tells how likely its tokens were."""
        return LOGPROBS in (self.include or ())

    @property
    def effort(self) -> str | None:
        """How much to reason."""
        return self.reasoning.effort if self.reasoning else None

    def referred_items(self) -> set[str]:
        """Ids of the items that the input only refers to."""
        return {item.id for item in self.input if isinstance(item, ReferenceItem)}

    def response_options(self) -> Options:
        """The dialect-free options."""
        return self.options(
            max_tokens=self.max_output_tokens,
            num_logprobs=(self.top_logprobs or 0) if self.shows_logprobs else None,
            constraint=self._format_constraint() or self.text_constraint(),
        )

    def offered_tools(self) -> Tools:
        """The functions that may be called, and whether one must be."""
        offered = tuple(tool.as_tool() for tool in self.tools or ())
        is_parallel = self.parallel_tool_calls is not False
        choice = self.tool_choice
        if isinstance(choice, FunctionChoice):
            return Tools(offered, "named", choice.name, is_parallel)
        if isinstance(choice, AllowedTools):
            names = {tool.name for tool in choice.tools}
            allowed = tuple(tool for tool in offered if tool["function"]["name"] in names)
            return Tools(allowed, choice.mode, None, is_parallel)
        return Tools(offered, choice or "auto", None, is_parallel)

    def _format_constraint(self) -> Constraint | None:
        chosen = self.text.format if self.text else None
        return chosen.constraint() if chosen else None

    def _check_metadata(self) -> None:
        for key, value in (self.metadata or {}).items():
            if len(key) > MAX_KEY_LENGTH or len(value) > MAX_VALUE_LENGTH:
                raise refusal(
                    "metadata",
                    f"metadata[{key[:40]!r}]: keys have up to {MAX_KEY_LENGTH} characters, values "
                    f"up to {MAX_VALUE_LENGTH}",
                )

    def _check_allowed(self) -> None:
        if isinstance(self.tool_choice, AllowedTools):
            known = {tool.name for tool in self.tools or ()}
            for tool in self.tool_choice.tools:
                if tool.name not in known:
                    raise refusal(
                        "tool_choice",
                        f"tool_choice allows {tool.name[:80]!r}, which is not among the tools",
                    )
