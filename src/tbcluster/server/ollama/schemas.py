"""What the endpoints of the Ollama dialect accept. A field is honoured or refused by name."""

from typing import Any, ClassVar, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from tbcluster.engine.limits import MAX_INTEGER, MAX_SEED, MAX_TEMPERATURE
from tbcluster.server.ask import Chat, Constraint, Options, Tools
from tbcluster.server.fields import Body, Listed, Nested, refusal
from tbcluster.server.ollama.keep_alive import KeepAlive
from tbcluster.server.ollama.turns import ChatMessage, neutral_messages
from tbcluster.server.openai.schemas import FunctionDefinition

MAX_STOPS = 64
MAX_STOP_LENGTH = 1000
MAX_TOOLS = 256
MAX_TOP_LOGPROBS = 20
# How many tokens Ollama's repetition penalty looks at where repeat_last_n does not say.
REPEAT_LAST_N = 64
# What "think" without a level means.
DEFAULT_EFFORT = "medium"

Think: TypeAlias = bool | Literal["low", "medium", "high", "max"]


class ModelOptions(Body):
    """How to answer. Settings of the machine change no answer: they are taken and left alone."""

    temperature: float | None = Field(default=None, ge=0, le=MAX_TEMPERATURE)
    top_k: int | None = Field(default=None, ge=0, le=MAX_INTEGER)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    # -1 draws one.
    seed: int | None = Field(default=None, ge=-1, le=MAX_SEED)
    stop: Listed[str] | None = Field(default=None, max_length=MAX_STOPS)
    # 0 and below: as many as there is room for.
    num_predict: int | None = Field(default=None, ge=-2, le=MAX_INTEGER)
    # -1: all tokens; 0: no penalties.
    repeat_last_n: int | None = Field(default=None, ge=-1, le=MAX_INTEGER)
    repeat_penalty: float | None = Field(default=None, gt=0, le=100)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    num_ctx: int | None = Field(default=None, ge=1, le=MAX_INTEGER)

    ACCEPTED: ClassVar[frozenset[str]] = frozenset(
        {
            "f16_kv",
            "low_vram",
            "main_gpu",
            "mirostat_eta",
            "mirostat_tau",
            "num_batch",
            "num_gpu",
            "num_keep",
            "num_thread",
            "numa",
            "use_mlock",
            "use_mmap",
        }
    )
    REFUSED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "embedding_only": (None, False),
        "logits_all": (None, False),
        "mirostat": (None, 0),
        "penalize_newline": (None, True),
        "tfs_z": (None, 1),
        "typical_p": (None, 1),
        "vocab_only": (None, False),
    }

    @model_validator(mode="after")
    def _check_stops(self) -> Self:
        if any(not 0 < len(text) <= MAX_STOP_LENGTH for text in self.stop or ()):
            raise refusal("stop", f"a stop text is empty or longer than {MAX_STOP_LENGTH}")
        return self

    def neutral(self, **others: Any) -> Options:
        """The dialect-free options; `others` is what stands beside the options in a body."""
        num_tokens = self.num_predict if self.num_predict and self.num_predict > 0 else None
        return Options(
            max_tokens=num_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            seed=None if self.seed == -1 else self.seed,
            stop=tuple(self.stop or ()),
            **self._penalties(),
            **others,
        )

    def _penalties(self) -> dict[str, Any]:
        last = REPEAT_LAST_N if self.repeat_last_n is None else self.repeat_last_n
        if last == 0:
            return {}
        return {
            "presence_penalty": self.presence_penalty or 0.0,
            "frequency_penalty": self.frequency_penalty or 0.0,
            "repetition_penalty": self.repeat_penalty or 1.0,
            "repetition_context": None if last == -1 else last,
        }


class FunctionTool(Nested):
    """A tool of a chat; functions are the only kind."""

    type: Literal["function"] = "function"
    function: FunctionDefinition


class GenerationFields(Body):
    """What chats and texts share."""

    model: str = Field(min_length=1)
    stream: bool | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: ModelOptions | None = None
    think: Think | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    keep_alive: KeepAlive = None

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise refusal("top_logprobs", "top_logprobs needs logprobs=true")
        return self

    @property
    def streams(self) -> bool:
        """Whether the answer is streamed, which is this dialect's default."""
        return self.stream is not False

    @property
    def effort(self) -> str | None:
        """How much to reason, in the neutral words."""
        if self.think is None:
            return None
        if isinstance(self.think, bool):
            return DEFAULT_EFFORT if self.think else "none"
        return self.think

    def neutral_options(self) -> Options:
        """The dialect-free options."""
        return (self.options or ModelOptions()).neutral(
            constraint=self._constraint(),
            num_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )

    def _constraint(self) -> Constraint | None:
        if not self.format and not isinstance(self.format, dict):
            return None
        if self.format == "json":
            return Constraint("json_object", None, "format")
        return Constraint("json_schema", self.format, "format")


class ChatRequest(GenerationFields):
    """Body of POST /api/chat."""

    messages: Listed[ChatMessage] | None = None
    tools: Listed[FunctionTool] | None = Field(default=None, max_length=MAX_TOOLS)

    def chat(self) -> Chat:
        """The dialect-free conversation."""
        messages = self.messages or []
        last = messages[-1]
        has_begun = last.role == "assistant" and bool((last.content or "").strip())
        return Chat(
            messages=neutral_messages(messages),
            tools=Tools(tuple(tool.model_dump(exclude_none=True) for tool in self.tools or ())),
            effort=self.effort,
            effort_param="think",
            continues_last=has_begun and not last.tool_calls,
        )


class GenerateRequest(GenerationFields):
    """Body of POST /api/generate."""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None

    REFUSED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "context": (None, []),
        "height": (None, 0),
        "images": (None, []),
        "steps": (None, 0),
        "suffix": (None, ""),
        "template": (None, ""),
        "width": (None, 0),
    }

    @model_validator(mode="after")
    def _check_raw(self) -> Self:
        if self.raw and self.system:
            raise refusal("system", "a raw prompt has no system message: leave one of them out")
        if self.raw and self.think:
            raise refusal("think", "a raw prompt asks for no thinking: leave one of them out")
        return self

    def chat(self) -> Chat:
        """The prompt as a conversation of one turn."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        return Chat(
            messages=[*messages, {"role": "user", "content": self.prompt}],
            param="prompt",
            effort=self.effort,
            effort_param="think",
        )


class ShowRequest(Body):
    """Body of POST /api/show."""

    model_config = ConfigDict(extra="allow", strict=True, populate_by_name=True)

    # Older clients say "name".
    model: str | None = None
    name: str | None = None
    verbose: bool | None = None

    REFUSED: ClassVar[dict[str, tuple[Any, ...]]] = {
        "options": (None, {}),
        "system": (None, ""),
        "template": (None, ""),
    }

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        if not self.wanted:
            raise refusal("model", "model is missing: name the model to show")
        return self

    @property
    def wanted(self) -> str:
        """The model's name."""
        return self.model or self.name or ""
