"""Tool calls of earlier turns, as chat templates take them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tbcluster.errors import RequestError


def template_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """OpenAI's messages in the shape that chat templates are written for: content is text,
    arguments are objects, and a tool's result carries the tool's name.

    Raises:
        RequestError: A call's arguments are no JSON object, or a part of a content is no text.
    """
    names: dict[str, str] = {}
    turns = []
    for message in messages:
        turn = {**message, "content": _content(message.get("content"))}
        if message.get("tool_calls"):
            turn["tool_calls"] = [_call(call) for call in message["tool_calls"]]
            names |= {call.get("id"): call["function"]["name"] for call in turn["tool_calls"]}
        else:
            turn.pop("tool_calls", None)
        if message.get("role") == "tool" and not message.get("name"):
            name = names.get(message.get("tool_call_id", ""))
            turn |= {"name": name} if name else {}
        turns.append(turn)
    return turns


def _content(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    try:
        return "".join(part["text"] for part in content)
    except (TypeError, KeyError) as error:
        raise RequestError(
            "a message's content has a part that is no text: this model takes text only", "messages"
        ) from error


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": _arguments(function)}}


def _arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments")
    if not arguments:
        return {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise RequestError(
                f"the arguments of the call of {function['name']!r} are no JSON: {error}",
                "messages",
            ) from error
    if not isinstance(arguments, dict):
        raise RequestError(
            f"the arguments of the call of {function['name']!r} are no JSON object", "messages"
        )
    return arguments
