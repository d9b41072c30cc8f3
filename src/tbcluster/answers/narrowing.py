"""Narrows a schema to values that survive a model's format and mlx-lm's parser.

Whatever satisfies the narrowed schema satisfies the one it was made of.
"""

from collections.abc import Mapping
from typing import Any

# Every integer up to here is itself as a float: some of mlx-lm's parsers go by way of one. With
# bounds llguidance writes no exponents either, which could stand for infinity.
_MAX_NUMBER = 10**15 - 1
# A text that holds no closing tag: "<" is never followed by "/".
_TAGLESS = "^([^<]|<+[^</])*<*$"
_STRING_RULES = {"pattern", "format", "enum", "const"}
_NUMBER_RULES = {"enum", "const", "multipleOf"}
_INNER = ("anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "$defs", "definitions")


def narrowed(schema: Any, *, tagless: bool = False) -> Any:
    """The schema with bounds on numbers, and objects closed that declare what they hold.

    Args:
        tagless: Whether texts must hold no closing tags; what is of no declared type is a scalar
            then.
    """
    if not isinstance(schema, Mapping):
        return _scalars() if tagless and schema is True else schema
    found = {key: _inner(key, value, tagless) for key, value in schema.items()}
    match found.get("type"):
        case "integer" | "number" if not _NUMBER_RULES & set(found):
            return _bounded(found)
        case "string" if tagless and not _STRING_RULES & set(found):
            return {**found, "pattern": _TAGLESS}
        case "object" if "properties" in found:
            return {"additionalProperties": False, **found}
        case "object" if tagless:
            return {"additionalProperties": _scalars(), **found}
        case "array" if tagless:
            return {"items": _scalars(), **found}
    is_open = not set(found) - {"title", "description", "default", *_NAMED}
    return {**found, **_scalars()} if tagless and is_open else found


def _inner(key: str, value: Any, tagless: bool) -> Any:
    if key in _NAMED and isinstance(value, Mapping):
        return {name: narrowed(item, tagless=tagless) for name, item in value.items()}
    if key in _INNER and isinstance(value, list):
        return [narrowed(item, tagless=tagless) for item in value]
    if key == "items" or (key == "additionalProperties" and value is not False):
        return narrowed(value, tagless=tagless)
    # All parts of an `allOf` hold at once: closing each alone would leave nothing.
    return value


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    low, high = schema.get("minimum", -_MAX_NUMBER), schema.get("maximum", _MAX_NUMBER)
    bounds = {"minimum": max(low, -_MAX_NUMBER), "maximum": min(high, _MAX_NUMBER)}
    return {**schema, **bounds}


def _scalars() -> dict[str, Any]:
    types: list[dict[str, Any]] = [
        {"type": "string", "pattern": _TAGLESS},
        _bounded({"type": "number"}),
        {"type": "boolean"},
        {"type": "null"},
    ]
    return {"anyOf": types}
