"""The messages that the Ollama dialect accepts."""

import json
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tbcluster.server.ask import Message
from tbcluster.server.fields import Listed, Nested, refusal


class CalledFunction(Nested):
    """A function that an earlier answer called."""

    name: str = Field(min_length=1)
    arguments: dict[str, Any]
    index: int | None = None
    description: str | None = None


class ToolCall(Nested):
    """A call of an earlier answer."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] | None = None


class ChatMessage(Nested):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: Listed[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _check_role(self) -> Self:
        if self.images:
            raise refusal("images", "images are not served: this model reads text")
        if self.tool_calls and self.role != "assistant":
            raise refusal("messages", "tool_calls belong into messages of role assistant")
        return self


def neutral_messages(turns: list[ChatMessage]) -> list[Message]:
    """A conversation in OpenAI's form. Calls that came without ids are given some."""
    messages: list[Message] = []
    open_calls: list[tuple[str, str]] = []
    for number, turn in enumerate(turns):
        message: Message = {"role": turn.role, "content": turn.content or ""}
        if turn.thinking is not None:
            message["reasoning_content"] = turn.thinking
        if turn.tool_calls:
            calls = [_call(call, f"{number}_{i}") for i, call in enumerate(turn.tool_calls)]
            open_calls = [(call["id"], call["function"]["name"]) for call in calls]
            message["tool_calls"] = calls
        if turn.role == "tool":
            message |= _answered(turn, open_calls)
        messages.append(message)
    return messages


def _call(call: ToolCall, number: str) -> dict[str, Any]:
    arguments = json.dumps(call.function.arguments, ensure_ascii=False)
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id or f"call_{number}", "type": "function", "function": function}


def _answered(turn: ChatMessage, open_calls: list[tuple[str, str]]) -> dict[str, str]:
    """Which call a tool's message answers: the one that it names, else the first still open."""
    for call_id, name in open_calls:
        if turn.tool_call_id in (None, call_id) and turn.tool_name in (None, name):
            open_calls.remove((call_id, name))
            return {"tool_call_id": call_id, "name": name}
    named = {"name": turn.tool_name} if turn.tool_name else {}
    return {"tool_call_id": turn.tool_call_id or "unknown", **named}
