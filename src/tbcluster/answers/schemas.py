"""Tools' parameter schemas, as plain as mlx-lm's tool parsers need them.

The parsers look at `type` alone. A schema that says it another way (a reference, a choice between a
type and null, an enum) is given the `type` that it amounts to.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# A chain of references that is longer than this goes round in a circle.
_MAX_REFERENCES = 16
_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}


def parameters(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's parameter schema; one that takes none has an object without properties."""
    found = tool["function"].get("parameters")
    return found if isinstance(found, dict) and found else {"type": "object", "properties": {}}


def parser_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tools with one `type` for each parameter wherever it has one."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool["function"]["name"],
                "parameters": {"type": "object", "properties": properties(parameters(tool))},
            },
        }
        for tool in tools
    ]


def properties(root: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each parameter's plain schema."""
    resolved = plain(root, root)
    found = resolved.get("properties")
    if not isinstance(found, dict):
        return {}
    return {name: plain(schema, root) for name, schema in found.items()}


def plain(schema: Any, root: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` with references followed, null choices left out, and the `type` it amounts to.

    Null is left out because a parameter that may be null may as a rule be missing too, and most
    formats cannot tell the text "null" from no value.
    """
    if not isinstance(schema, Mapping):
        return {}
    found = dict(schema)
    for _ in range(_MAX_REFERENCES):
        inner = _inner(found, root)
        if inner is None:
            break
        found = inner
    single = _single_type(found)
    return found | {"type": single} if single else found


def _inner(schema: dict[str, Any], root: Mapping[str, Any]) -> dict[str, Any] | None:
    """One step inwards: a reference's target, or the only choice there is."""
    for key in ("$ref", "anyOf", "oneOf", "allOf"):
        if key in schema:
            rest = {name: value for name, value in schema.items() if name != key}
            target = _target(key, schema[key], root)
            return None if target is None else {**rest, **target}
    return None


def _target(key: str, value: Any, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if key == "$ref":
        return _referenced(value, root)
    choices = (
        [choice for choice in value if not _is_null(choice)] if isinstance(value, list) else []
    )
    if len(choices) == 1 and isinstance(choices[0], Mapping):
        return choices[0]
    return None


def _referenced(reference: Any, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found if isinstance(found, Mapping) else None


def _single_type(schema: Mapping[str, Any]) -> str | None:
    declared = schema.get("type")
    if isinstance(declared, str):
        return declared
    if isinstance(declared, list):
        types = [name for name in declared if name != "null"]
        return types[0] if len(types) == 1 and isinstance(types[0], str) else None
    enum = schema.get("enum")
    values = enum if isinstance(enum, list) else [schema.get("const")]
    types_of_values = {_JSON_TYPES.get(type(value)) for value in values}
    if len(types_of_values) == 1 and None not in types_of_values:
        return types_of_values.pop()
    return None


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"
