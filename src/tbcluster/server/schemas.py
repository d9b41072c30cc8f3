"""What the OpenAI-style endpoints accept. A field is honoured or refused by name, never ignored."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tbcluster.engine.limits import MAX_INTEGER, MAX_SEED

MAX_STOPS = 4
MAX_STOP_LENGTH = 1000
MAX_CHOICES = 16

# Fields of the dialect that are not served yet, with the values that ask for nothing special.
UNSERVED: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
    "parallel_tool_calls": (None, True, False),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "reasoning_effort": (None,),
    "response_format": (None, {"type": "text"}),
    "suffix": (None,),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "top_logprobs": (None, 0),
}
# Fields that are bookkeeping of the caller's: accepted, and of no effect here.
ACCEPTED = {"metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user"}


def refusal(param: str, message: str) -> PydanticCustomError:
    """A complaint about one field, which is named in the error's context."""
    return PydanticCustomError("refused", "{message}", {"message": message, "param": param})


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False


class GenerationFields(BaseModel):
    """What both endpoints share."""

    model_config = ConfigDict(extra="allow")

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=MAX_INTEGER)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-MAX_SEED, le=MAX_SEED - MAX_CHOICES)
    stop: str | list[str] | None = None
    cache_prompt: bool = True

    @model_validator(mode="after")
    def _refuse_by_name(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name in ACCEPTED:
                continue
            if name not in UNSERVED:
                raise refusal(name, f"there is no field {name!r}")
            if value not in UNSERVED[name]:
                raise refusal(name, f"{name} is not served yet: leave it out")
        if self.stream_options is not None and not self.stream:
            raise refusal("stream_options", "stream_options needs stream=true")
        if len(self.stops) > MAX_STOPS:
            raise refusal(
                "stop", f"stop has {len(self.stops)} texts, at most {MAX_STOPS} are allowed"
            )
        if any(not 0 < len(word) <= MAX_STOP_LENGTH for word in self.stops):
            raise refusal("stop", f"a stop text is empty or longer than {MAX_STOP_LENGTH}")
        return self

    @property
    def stops(self) -> list[str]:
        """The stop texts as a list."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop


class TextPart(BaseModel):
    """A part of a message; text is the only kind served."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        """The content in one piece."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatCompletionRequest(GenerationFields):
    """Body of POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_INTEGER)


class CompletionRequest(GenerationFields):
    """Body of POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts one by one, as texts or token arrays."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        tokens = [item for item in self.prompt if isinstance(item, int)]
        return [tokens] if tokens else [item for item in self.prompt if not isinstance(item, int)]
