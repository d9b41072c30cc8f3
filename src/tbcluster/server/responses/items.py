"""Items, of which inputs and outputs of the Responses API are lists, as messages of a chat.

Items come here in the form in which they are kept and answered: plain, complete, with ids.
"""

import secrets
from collections.abc import Iterable
from typing import Any

from tbcluster.errors import RequestError
from tbcluster.server.ask import Message
from tbcluster.server.responses.store import Item

_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
}


def new_item_id(kind: str) -> str:
    """An id for an item of this type, in OpenAI's manner."""
    return f"{_PREFIXES[kind]}_{secrets.token_hex(24)}"


def chat_messages(instructions: str | None, items: Iterable[Item]) -> list[Message]:
    """A conversation as chat templates take it.

    Args:
        instructions: The system message. System items at the beginning are joined to it: many
            templates take a single one.

    Raises:
        RequestError: A call's output comes without the call.
    """
    turns = _Turns()
    if instructions:
        turns.say("system", instructions)
    for item in items:
        turns.add(item)
    return turns.messages()


class _Turns:
    """Gathers what the assistant does between two turns of others into one message: items are
    single steps, messages hold reasoning, text and calls together."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._assistant: Message | None = None
        self._called: dict[str, str] = {}

    def add(self, item: Item) -> None:
        match item["type"]:
            case "message" if item["role"] == "assistant":
                self._think_or_speak("content", text_of(item["content"]))
            case "message":
                role = "system" if item["role"] == "developer" else item["role"]
                self.say(role, text_of(item["content"]))
            case "reasoning":
                thoughts = text_of(item.get("content") or item["summary"])
                self._think_or_speak("reasoning_content", thoughts)
            case "function_call":
                self._call(item)
            case "function_call_output":
                self._hear(item)

    def say(self, role: str, content: str) -> None:
        """A message of the system or the user."""
        self._end_turn()
        if role == "system" and len(self._messages) == 1 and self._messages[0]["role"] == role:
            self._messages[0]["content"] += f"\n\n{content}"
        else:
            self._messages.append({"role": role, "content": content})

    def messages(self) -> list[Message]:
        """All messages so far."""
        self._end_turn()
        return self._messages

    def _think_or_speak(self, field: str, text: str) -> None:
        turn = self._assistant
        # What follows a text is a turn of its own; between calls that wait for their outputs there
        # is no room for one.
        if turn is not None and turn["content"] and not turn.get("tool_calls"):
            self._end_turn()
        turn = self._turn()
        turn[field] = (turn.get(field) or "") + text

    def _call(self, item: Item) -> None:
        self._called[item["call_id"]] = item["name"]
        call = {
            "id": item["call_id"],
            "type": "function",
            "function": {"name": item["name"], "arguments": item["arguments"]},
        }
        self._turn().setdefault("tool_calls", []).append(call)

    def _hear(self, item: Item) -> None:
        call_id = item["call_id"]
        if call_id not in self._called:
            raise RequestError(
                f"a function_call_output is for {call_id[:80]!r}, but no function_call before it "
                "has this call_id",
                "input",
            )
        self._end_turn()
        output = item["output"]
        self._messages.append(
            {
                "role": "tool",
                "tool_call_id": call_id,
                "name": self._called[call_id],
                "content": output if isinstance(output, str) else text_of(output),
            }
        )

    def _turn(self) -> Message:
        if self._assistant is None:
            self._assistant = {"role": "assistant", "content": ""}
        return self._assistant

    def _end_turn(self) -> None:
        if self._assistant is not None:
            self._messages.append(self._assistant)
            self._assistant = None


def text_of(parts: Iterable[dict[str, Any]]) -> str:
    """The text of content parts."""
    return "".join(part.get("text") or part.get("refusal") or "" for part in parts)
