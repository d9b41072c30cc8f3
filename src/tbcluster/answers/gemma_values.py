"""Grammars for values as Gemma writes them: texts between tokens of their own, keys bare."""

from collections.abc import Mapping
from typing import Any

from tbcluster.answers.lark import Lark, quoted
from tbcluster.answers.schemas import plain
from tbcluster.answers.tag_values import TagValues, UnwritableError

_SCALARS = ("integer", "number", "boolean")
_OBJECT_KEYS = {"type", "properties", "required", "additionalProperties", "title", "description"}
_ARRAY_KEYS = {"type", "items", "minItems", "maxItems", "title", "description", "default"}
# Schemas nest no deeper than a person would write them; one that refers to itself ends here.
_MAX_DEPTH = 8
# References can make a short schema stand for millions of parts.
_MAX_RULES = 4000


def function_gemma_value(lark: Lark, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """A text or scalar: mlx-lm's parser reads no more.

    Raises:
        UnwritableError: It is something else.
    """
    simple = plain(schema, root)
    if simple.get("type") == "string":
        return _text(lark, simple, root, "<escape>", "}")
    if simple.get("type") in _SCALARS and not _has_commas(simple):
        return _scalar(lark, simple, root)
    raise UnwritableError("it is neither a text nor a number nor a truth value")


def gemma4_value(
    lark: Lark, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0
) -> str:
    """Any value of one type.

    Raises:
        UnwritableError: Its type is not one alone, or it is constrained by more than its parts.
    """
    simple = plain(schema, root)
    if depth > _MAX_DEPTH or lark.num_rules > _MAX_RULES:
        raise UnwritableError("it nests too deep or has too many parts")
    match simple.get("type"):
        case "string":
            return _text(lark, simple, root, '<|"|>', "\x00")
        case "integer" | "number" | "boolean":
            return _scalar(lark, simple, root)
        case "array" if set(simple) <= _ARRAY_KEYS:
            return _array(lark, simple, root, depth)
        case "object" if set(simple) <= _OBJECT_KEYS:
            return _object(lark, simple, root, depth)
    raise UnwritableError("it is not of one type that is described by its parts alone")


def _text(
    lark: Lark, schema: Mapping[str, Any], root: Mapping[str, Any], quote: str, excluded: str
) -> str:
    body = TagValues(quote, (excluded,), strips=False).value(lark, schema, root)
    return lark.rule(f"{lark.literal(quote)} {body}")


def _scalar(lark: Lark, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    return TagValues("").value(lark, schema, root)


def _has_commas(schema: Mapping[str, Any]) -> bool:
    return any(isinstance(value, (list, dict)) for value in schema.get("enum", ()))


def _array(lark: Lark, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> str:
    item = gemma4_value(lark, schema.get("items", {}), root, depth + 1)
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    if high == 0:
        return quoted("[]")
    rest = f"{max(low - 1, 0)},{'' if high is None else high - 1}"
    items = f"{item} ({quoted(',')} {item}){{{rest}}}"
    return lark.rule(f"{quoted('[')} ({items}){'' if low else '?'} {quoted(']')}")


def _object(lark: Lark, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> str:
    required = set(schema.get("required", ()))
    schemas = schema.get("properties", {})
    items = []
    for key, inner in schemas.items():
        if not key.isidentifier():
            raise UnwritableError(f"its key {key!r} is none that the format can hold")
        value = gemma4_value(lark, inner, root, depth + 1)
        items.append((lark.rule(f"{quoted(f'{key}:')} {value}"), key in required))
    if required - set(schemas):
        raise UnwritableError("it requires properties that it does not declare")
    return lark.rule(f"{quoted('{')} {lark.separated(items, quoted(','))} {quoted('}')}")
