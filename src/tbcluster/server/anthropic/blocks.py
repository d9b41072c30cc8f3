"""The content blocks and messages that the Anthropic dialect accepts."""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from tbcluster.server.ask import Message
from tbcluster.server.fields import Listed, Nested, refusal

# Blocks are paragraphs of their own.
SEPARATOR = "\n\n"
MAX_SHOWN_KIND = 40


class CacheControl(Nested):
    """A hint for a cache; here every prompt's prefix is kept as long as there is room."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Nested):
    """A piece of text."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None
    # Clients send answers back as they got them.
    citations: Annotated[list[Any], Field(max_length=0)] | None = None


class ThinkingBlock(Nested):
    """What an earlier answer thought."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Nested):
    """Thoughts of another provider's model, encrypted: there is nothing to read in them."""

    type: Literal["redacted_thinking"]
    data: str


class DirectCaller(Nested):
    """Says that the model itself called a tool."""

    type: Literal["direct"]


class ToolUseBlock(Nested):
    """A tool call of an earlier answer."""

    type: Literal["tool_use"]
    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: DirectCaller | None = None
    toolset_name: None = None

    def as_call(self) -> dict[str, Any]:
        """The call in OpenAI's form."""
        function = {"name": self.name, "arguments": json.dumps(self.input, ensure_ascii=False)}
        return {"id": self.id, "type": "function", "function": function}


def _listed(shape: Any, served: Sequence[str], param: str = "messages") -> BeforeValidator:
    """Content of this shape as a list of blocks of these kinds; a text is a list of one."""

    def listed(value: Any) -> Any:
        if isinstance(value, str):
            return [{"type": "text", "text": value}]
        for block in value if isinstance(value, list) else ():
            kind = block.get("type") if isinstance(block, dict) else None
            if isinstance(kind, str) and kind not in served:
                raise refusal(
                    param,
                    f"a content block of type {kind[:MAX_SHOWN_KIND]!r} is not served here: "
                    f"{param} may hold {', '.join(served)}",
                )
        return value

    return BeforeValidator(listed, json_schema_input_type=str | shape)


SystemContent: TypeAlias = Annotated[
    Listed[TextBlock], _listed(list[TextBlock], ["text"], "system")
]
ResultContent: TypeAlias = Annotated[
    Listed[TextBlock], _listed(list[TextBlock], ["text"], "tool_result")
]


class ToolResultBlock(Nested):
    """What a tool that was called gave back."""

    type: Literal["tool_result"]
    tool_use_id: str = Field(min_length=1)
    content: ResultContent | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None
    toolset_name: None = None

    def as_message(self) -> Message:
        """The result in OpenAI's form."""
        text = joined(self.content or ())
        return {
            "role": "tool",
            "tool_call_id": self.tool_use_id,
            "content": f"Error: {text}" if self.is_error else text,
        }


Block: TypeAlias = Annotated[
    TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock,
    Field(discriminator="type"),
]
Content: TypeAlias = Annotated[
    Listed[Block],
    _listed(list[Block], ["text", "thinking", "redacted_thinking", "tool_use", "tool_result"]),
]
# Role -> the blocks that its messages may hold.
_KINDS = {
    "system": {"text"},
    "user": {"text", "tool_result"},
    "assistant": {"text", "thinking", "redacted_thinking", "tool_use"},
}


class MessageParam(Nested):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: Content

    @model_validator(mode="after")
    def _check_kinds(self) -> Self:
        for block in self.content:
            if block.type not in _KINDS[self.role]:
                raise refusal(
                    "messages",
                    f"a block of type {block.type} does not belong into a message of role "
                    f"{self.role}",
                )
        return self


def joined(blocks: Iterable[TextBlock]) -> str:
    """The text of text blocks."""
    return SEPARATOR.join(block.text for block in blocks)


def neutral_messages(system: Sequence[TextBlock], turns: Sequence[MessageParam]) -> list[Message]:
    """A conversation in OpenAI's form. Turns of the same role that follow each other become one."""
    said: list[Message] = [{"role": "system", "content": joined(system)}] if system else []
    for turn in turns:
        said += _answer(turn.content) if turn.role == "assistant" else _others(turn)
    runs = groupby(enumerate(said), key=_key_of_turn)
    return [_as_one([message for _, message in run]) for _, run in runs]


def _answer(content: Sequence[Block]) -> Iterable[Message]:
    texts = [block for block in content if isinstance(block, TextBlock)]
    thoughts = [block.thinking for block in content if isinstance(block, ThinkingBlock)]
    calls = [block.as_call() for block in content if isinstance(block, ToolUseBlock)]
    message: Message = {"role": "assistant", "content": joined(texts)}
    if thoughts:
        message["reasoning_content"] = SEPARATOR.join(thoughts)
    if calls:
        message["tool_calls"] = calls
    yield message


def _others(turn: MessageParam) -> Iterable[Message]:
    """Tool results are messages of their own, before and after the text around them."""
    if not turn.content:
        yield {"role": turn.role, "content": ""}
    for block in turn.content:
        if isinstance(block, ToolResultBlock):
            yield block.as_message()
        elif isinstance(block, TextBlock):
            yield {"role": turn.role, "content": block.text}


def _key_of_turn(numbered: tuple[int, Message]) -> int | str:
    """Equal for what belongs to one turn; each tool result is one of its own."""
    number, message = numbered
    return number if message["role"] == "tool" else str(message["role"])


def _as_one(messages: list[Message]) -> Message:
    """What the same one said in a row. There may be thousands: texts are joined once."""
    whole = dict(messages[0])
    for field in ("content", "reasoning_content"):
        if texts := [message[field] for message in messages if message.get(field)]:
            whole[field] = SEPARATOR.join(texts)
    if calls := [call for message in messages for call in message.get("tool_calls", ())]:
        whole["tool_calls"] = calls
    return whole
