"""What mlx-lm's tool parsers make of a finished call, checked to be one."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Parser = Callable[[str, Any], Any]

# The parsers, and the JSON, Python and regular expressions under them, raise all of these over
# what a model may write.
PARSER_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    SyntaxError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A whole call.

    Attributes:
        call_id: The model's own, if its format has one.
    """

    name: str
    arguments: dict[str, Any]
    call_id: str | None = None


def parse_calls(parser: Parser, text: str, tools: Sequence[Any]) -> list[ParsedCall]:
    """The calls in a block's text, without the block's markers.

    Raises:
        ValueError: The text is no tool call.
    """
    try:
        parsed = parser(text.strip(), tools)
        return [_checked(call) for call in (parsed if isinstance(parsed, list) else [parsed])]
    except PARSER_ERRORS as error:
        raise ValueError(f"no tool call: {error}") from error


def to_json(value: Any) -> str:
    """JSON that can be sent as UTF-8.

    Raises:
        ValueError: JSON has no such value (not a number, infinity, a set).
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except TypeError as error:
        raise ValueError(str(error)) from error
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return text


def _checked(call: dict[str, Any]) -> ParsedCall:
    name = call["name"]
    arguments = call.get("arguments", call.get("parameters"))
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if arguments is None:
        arguments = {}
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        raise ValueError("a call has a name and an object of arguments")
    name.encode()
    call_id = call.get("id")
    return ParsedCall(
        name,
        json.loads(to_json(arguments)),
        call_id if isinstance(call_id, str) and call_id.isprintable() and call_id else None,
    )
