"""Grammars that force a tool call in the model's own format.

What such a grammar admits, mlx-lm's parser reads back as a call of one of the tools, with arguments
that satisfy its schema.
"""

import json
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from tbcluster.answers.gemma_values import function_gemma_value, gemma4_value
from tbcluster.answers.lark import MAX_CALLS, Lark, quoted
from tbcluster.answers.narrowing import narrowed
from tbcluster.answers.schemas import parameters, properties
from tbcluster.answers.tag_values import TagValues, UnwritableError, property_schema
from tbcluster.errors import RequestError

Tool = Mapping[str, Any]
# A parameter's schema, and the whole it comes from -> what refers to its value.
ValueWriter = Callable[[Lark, Mapping[str, Any], Mapping[str, Any]], str]
# What a schema may say besides its properties where each parameter is written by itself.
_PLAIN_KEYS = {
    "type",
    "properties",
    "required",
    "additionalProperties",
    "title",
    "description",
    "default",
    "examples",
    "strict",
    "$schema",
    "$id",
    "$defs",
    "definitions",
}


class _Format(Protocol):
    """The part of AnswerFormat that is needed here."""

    tokenizer: Any

    @property
    def parser_type(self) -> str | None: ...


def tool_call_grammar(
    format: _Format,  # noqa: A002
    tools: Sequence[Tool],
    *,
    parallel: bool,
    otherwise: Mapping[str, Any] | Literal["text"] | None = None,
) -> str:
    """A Lark grammar, in llguidance's dialect, of at least one call of one of the tools.

    Args:
        tools: In OpenAI's shape, at least one.
        parallel: Whether there may be several calls; otherwise there is exactly one.
        otherwise: What an answer without a call may be: JSON of this schema, or any text, which
            may also come before calls. None: there is no such answer.

    Raises:
        RequestError: The model's format cannot be forced, or not for these tools, or a schema is
            none.
    """
    writer = _WRITERS.get(format.parser_type or "")
    if writer is None:
        raise RequestError(
            f"this model's format of tool calls ({format.parser_type}) cannot be forced: use "
            'tool_choice "auto"',
            "tool_choice",
        )
    lark = Lark(_special_tokens(format.tokenizer))
    try:
        calls = writer(lark, format.tokenizer, tools, parallel)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise RequestError(
            f"the tools' parameters are no valid JSON schemas: {error}", "tools"
        ) from error
    if otherwise == "text":
        return lark.text(f"{_free_text(lark, format.tokenizer)} ({calls})?")
    if otherwise is not None:
        calls = f"({calls} | {lark.json(otherwise)})"
    # Reasoning ends with as many newlines in most templates.
    return lark.text(f'("\\n" | "\\n\\n")? {calls}')


def _free_text(lark: Lark, tokenizer: Any) -> str:
    """Anything but what would begin a call, with the marks that the format puts around answers."""
    if not lark.is_special(tokenizer.tool_call_start):
        # Where the marker is text too, nothing tells the end of what comes before it.
        raise RequestError(
            "this model's calls begin with plain text: it cannot keep to a tool's schema and be "
            'free to answer in words. Leave "strict" out, or force a call with tool_choice',
            "tools",
        )
    marks = [lark.literal(mark) for mark in tokenizer.structural_markers]
    return f"({' | '.join([lark.terminal('/(?s:.+)/'), *marks])})*"


def _special_tokens(tokenizer: Any) -> dict[str, int]:
    """What llguidance keeps apart from text: special tokens, and added ones in angle brackets."""
    added = tokenizer.added_tokens_decoder.items()
    return {token.content: token_id for token_id, token in added if _is_special(token)}


def _is_special(token: Any) -> bool:
    return bool(token.special) or (token.content.startswith("<") and token.content.endswith(">"))


def _name(tool: Tool, allowed: str) -> str:
    name = str(tool["function"]["name"])
    if not re.fullmatch(allowed, name):
        raise RequestError(
            f"the tool {name!r} has a name that this model's format cannot hold: use letters, "
            "digits and underscores",
            "tools",
        )
    return name


def _arguments(lark: Lark, tool: Tool) -> str:
    """All arguments in one JSON object; none are made up where the schema leaves that open."""
    return lark.json(narrowed({**parameters(tool), "type": "object"}))


def _parameters(
    lark: Lark, tool: Tool, write: ValueWriter, key_pattern: str
) -> list[tuple[str, str, bool]]:
    """For each parameter its name, what refers to its value, and whether it is required. What may
    be left out and cannot be written is left out."""
    root = parameters(tool)
    name = tool["function"]["name"]
    required = set(root.get("required", ()))
    schemas = properties(root)
    strange = sorted((set(root) - _PLAIN_KEYS) | (required - set(schemas)))
    if strange:
        raise _unwritable(name, strange[0], "only declared properties can be forced")
    found = []
    for key, schema in schemas.items():
        try:
            if not re.fullmatch(key_pattern, key):
                raise UnwritableError("its name is none that the format can hold")
            found.append((key, write(lark, schema, root), key in required))
        except UnwritableError as error:
            if key in required:
                raise _unwritable(name, key, str(error)) from error
    return found


def _unwritable(tool: str, what: str, why: str) -> RequestError:
    return RequestError(
        f"a call of {tool!r} cannot be forced in this model's format because of {what!r} "
        f'({why}): use tool_choice "auto", or change the schema',
        "tool_choice",
    )


def _any(options: Sequence[str]) -> str:
    return f"({' | '.join(options)})"


def _json_tools(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
    start, end = lark.literal("<tool_call>\n"), lark.literal("\n</tool_call>")
    calls = [f"{quoted(_json_head(tool))} {_arguments(lark, tool)} {quoted('}')}" for tool in tools]
    return lark.repeated(lark.rule(f"{start} {_any(calls)} {end}"), quoted("\n"), parallel=parallel)


def _json_head(tool: Tool) -> str:
    return f'{{"name": {json.dumps(tool["function"]["name"], ensure_ascii=False)}, "arguments": '


def _mistral(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
    start = lark.literal("[TOOL_CALLS]")
    if "[ARGS]" in tokenizer.get_vocab():
        middle = lark.literal("[ARGS]")
        names = [quoted(_name(tool, r"[\w-]+")) for tool in tools]
        calls = [
            f"{start} {name} {middle} {_arguments(lark, tool)}"
            for name, tool in zip(names, tools, strict=True)
        ]
        return lark.repeated(lark.rule(_any(calls)), "", parallel=parallel)
    items = [f"{quoted(_json_head(tool))} {_arguments(lark, tool)} {quoted('}')}" for tool in tools]
    listed = lark.repeated(lark.rule(_any(items)), quoted(", "), parallel=parallel)
    return f"{start} {quoted('[')} {listed} {quoted(']')}"


def _kimi_k2(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
    begin, end = lark.literal("<|tool_call_begin|>"), lark.literal("<|tool_call_end|>")
    middle = lark.literal("<|tool_call_argument_begin|>")
    arguments = {_name(tool, r"[^\s<:]+"): _arguments(lark, tool) for tool in tools}
    later = ""
    # Each call's id holds its number.
    for number in reversed(range(MAX_CALLS if parallel else 1)):
        heads = [
            f"{quoted(f'functions.{name}:{number}')} {middle} {value}"
            for name, value in arguments.items()
        ]
        later = lark.rule(f"{begin} {_any(heads)} {end}" + (f" ({later})?" if later else ""))
    section = [f"<|tool_calls_section_{edge}|>" for edge in ("begin", "end")]
    return f"{lark.literal(section[0])} {later} {lark.literal(section[1])}"


def _kimi_k3(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
    opened, closed = lark.literal('<|open|>json type="object"<|sep|>'), "<|close|>json<|sep|>"
    ends = lark.literal(closed + "<|close|>call<|sep|>")
    calls = []
    for tool in tools:
        name = _name(tool, r"[^\s\"<>&]+")
        start = lark.literal(f'<|open|>call tool="{name}" index="')
        number = f"/[1-9][0-9]?/ {lark.literal(chr(34) + '<|sep|>')}"
        calls.append(f"{start} {number} {opened} {_arguments(lark, tool)} {ends}")
    listed = lark.repeated(lark.rule(_any(calls)), "", parallel=parallel)
    start, end = "<|open|>tools<|sep|>", "<|close|>tools<|sep|>"
    return f"{lark.literal(start)} {listed} {lark.literal(end)}"


def _qwen3_coder(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
    values = TagValues("\n</parameter>\n", strips=False, has_null=True)
    calls = []
    for tool in tools:
        body = "".join(
            _maybe(f"{quoted(f'<parameter={key}>' + chr(10))} {value}", is_required)
            for key, value, is_required in _parameters(lark, tool, values.value, r"[^\s<>]+")
        )
        name = _name(tool, r"[^\s<>]+")
        calls.append(f"{quoted(f'<function={name}>' + chr(10))} {body} {quoted('</function>')}")
    start, end = lark.literal("<tool_call>\n"), lark.literal("\n</tool_call>")
    return lark.repeated(lark.rule(f"{start} {_any(calls)} {end}"), quoted("\n"), parallel=parallel)


def _minimax_m2(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
    values = TagValues("</parameter>\n", ("</invoke>",), has_null=True)
    calls = []
    for tool in tools:
        body = "".join(
            _maybe(f"{quoted(f'<parameter name={chr(34)}{key}{chr(34)}>')} {value}", is_required)
            for key, value, is_required in _parameters(lark, tool, values.value, r"[^\s\"'<>]+")
        )
        start = f'<invoke name="{_name(tool, _PLAIN_NAME)}">\n'
        calls.append(f"{quoted(start)} {body} {quoted('</invoke>' + chr(10))}")
    listed = lark.repeated(lark.rule(_any(calls)), "", parallel=parallel)
    start, end = "<minimax:tool_call>\n", "</minimax:tool_call>"
    return f"{lark.literal(start)} {listed} {lark.literal(end)}"


def _minicpm5(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
    values = TagValues("</param>", ("</function>",), has_null=True, cdata=True)
    calls = []
    for tool in tools:
        body = "".join(
            _maybe(f"{quoted(f'<param name={chr(34)}{key}{chr(34)}>')} {value}", is_required)
            for key, value, is_required in _parameters(lark, tool, values.value, r"[^\s\"'<>]+")
        )
        start = lark.literal(f'<function name="{_name(tool, _PLAIN_NAME)}">')
        calls.append(f"{start} {body} {lark.literal('</function>')}")
    return lark.repeated(lark.rule(_any(calls)), quoted("\n"), parallel=parallel)


def _glm47(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
    calls = [_arg_tags(lark, tool, "") for tool in tools]
    start, end = lark.literal("<tool_call>"), lark.literal("</tool_call>")
    block = lark.rule(f"{start} {_any(calls)} {end}")
    return lark.repeated(block, '"\\n"?', parallel=parallel)


def _longcat(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
    calls = []
    for tool in tools:
        if parameters(tool).get("required"):
            calls.append(_arg_tags(lark, tool, "longcat_"))
        else:
            # mlx-lm's parser does not read a call without arguments any other way.
            calls.append(f"{quoted(_json_head(tool))} {_arguments(lark, tool)} {quoted('}')}")
    start, end = lark.literal("<longcat_tool_call>"), lark.literal("</longcat_tool_call>")
    block = lark.rule(f"{start} {_any(calls)} {end}")
    return lark.repeated(block, '"\\n"?', parallel=parallel)


def _arg_tags(lark: Lark, tool: Tool, prefix: str) -> str:
    key_start, key_end = f"<{prefix}arg_key>", f"</{prefix}arg_key>"
    value_start, value_end = f"<{prefix}arg_value>", f"</{prefix}arg_value>"
    closing = f"</{prefix}tool_call>"
    values = TagValues(value_end, (closing,), reads_json=True)
    body = "".join(
        _maybe(
            f"{lark.literal(key_start + key + key_end)} {_NEWLINE} {lark.literal(value_start)} "
            f"{value} {_NEWLINE}",
            is_required,
        )
        for key, value, is_required in _parameters(lark, tool, values.value, r"[^\s<>]+")
    )
    name = _name(tool, r"[\w.-]+")
    return f"{quoted(name)} {_NEWLINE} {body}"


def _gemma(write: ValueWriter, start: str, end: str) -> "_Writer":
    def write_calls(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
        calls = []
        for tool in tools:
            items = [
                (lark.rule(f"{quoted(f'{key}:')} {value}"), is_required)
                for key, value, is_required in _parameters(lark, tool, write, r"\w+")
            ]
            body = lark.separated(items, quoted(","))
            name = _name(tool, r"\w+")
            calls.append(f"{quoted(f'call:{name}{{')} {body} {quoted('}')}")
        block = lark.rule(f"{lark.literal(start)} {_any(calls)} {lark.literal(end)}")
        return lark.repeated(block, "", parallel=parallel)

    return write_calls


def _pythonic(lark: Lark, tokenizer: Any, tools: Sequence[Tool], parallel: bool) -> str:
    def write(lark: Lark, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
        return lark.json(narrowed(property_schema(schema, root)))

    calls = []
    for tool in tools:
        items = [
            (lark.rule(f"{quoted(f'{key}=')} {value}"), is_required)
            for key, value, is_required in _parameters(lark, tool, write, _IDENTIFIER)
        ]
        name = _name(tool, r"[^\W\d]\w*(\.[^\W\d]\w*)*")
        calls.append(f"{quoted(f'{name}(')} {lark.separated(items, quoted(', '))} {quoted(')')}")
    listed = lark.repeated(lark.rule(_any(calls)), quoted(", "), parallel=parallel)
    start, end = lark.literal("<|tool_call_start|>["), lark.literal("]<|tool_call_end|>")
    return f"{start} {listed} {end}"


def _maybe(body: str, is_required: bool) -> str:
    return f" ({body})" if is_required else f" ({body})?"


_Writer = Callable[[Lark, Any, Sequence[Tool], bool], str]
_NEWLINE = '"\\n"?'
_IDENTIFIER = rf"(?!(?:{'|'.join(keyword.kwlist)})$)[^\W\d]\w*"
_PLAIN_NAME = r"[^\s\"'<>]+"
# By the name of mlx-lm's parser. Muse Spark's calls follow a header that is not part of them.
_WRITERS: dict[str, _Writer] = {
    "json_tools": _json_tools,
    "mistral": _mistral,
    "kimi_k2": _kimi_k2,
    "kimi_k3": _kimi_k3,
    "qwen3_coder": _qwen3_coder,
    "glm47": _glm47,
    "laguna": _glm47,
    "longcat": _longcat,
    "minimax_m2": _minimax_m2,
    "minicpm5": _minicpm5,
    "gemma4": _gemma(gemma4_value, "<|tool_call>", "<tool_call|>"),
    "function_gemma": _gemma(function_gemma_value, "<start_function_call>", "<end_function_call>"),
    "pythonic": _pythonic,
}
