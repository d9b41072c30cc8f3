"""The types that tools' schemas amount to, and schemas narrowed to what a format can hold."""

from typing import Any

import jsonschema
import pytest

from tbcluster.answers.narrowing import narrowed
from tbcluster.answers.schemas import parser_tools, plain

ROOT = {
    "$defs": {"size": {"type": "integer", "minimum": 1}, "a/b": {"enum": ["x"]}},
    "loop": {"$ref": "#/loop"},
}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": "string"}, "string"),
        ({"type": ["integer", "null"]}, "integer"),
        ({"type": ["integer", "string"]}, None),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number"),
        ({"anyOf": [{"type": "number"}, {"type": "string"}]}, None),
        ({"$ref": "#/$defs/size"}, "integer"),
        ({"anyOf": [{"$ref": "#/$defs/size"}, {"type": "null"}]}, "integer"),
        ({"$ref": "#/$defs/a~1b"}, "string"),
        ({"allOf": [{"$ref": "#/$defs/size"}]}, "integer"),
        ({"enum": ["a", "b"]}, "string"),
        ({"enum": ["a", 1]}, None),
        ({"const": True}, "boolean"),
        ({"$ref": "#/loop"}, None),
        ({"$ref": "#/nowhere"}, None),
        ({"$ref": "https://example.com/x"}, None),
        (True, None),
        ({}, None),
    ],
)
def test_the_type_a_schema_amounts_to(schema: Any, wanted: str | None) -> None:
    found = plain(schema, ROOT).get("type")
    assert (found if isinstance(found, str) else None) == wanted


def test_every_tool_has_parameters_for_the_parsers() -> None:
    tools = [{"function": {"name": "a"}}, {"function": {"name": "b", "parameters": None}}]
    for tool in parser_tools(tools):
        assert tool["function"]["parameters"] == {"type": "object", "properties": {}}


SCHEMAS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "number", "maximum": 3},
    {"type": "object", "properties": {"a": {"type": "string"}}},
    {"type": "array"},
    {"type": "object"},
    {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    {},
]
VALUES: list[Any] = ["a", "a</b", "<<a", "a<", 2, 2.5, 1e300, -5, {"a": "b"}, {"a": "</b"}, [], [1]]
VALUES += [{"a": "x", "c": 1}, ["</"], None, True]


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("tagless", [True, False])
def test_a_narrowed_schema_admits_nothing_new(schema: dict[str, Any], tagless: bool) -> None:
    strict = jsonschema.Draft202012Validator(narrowed(schema, tagless=tagless))
    loose = jsonschema.Draft202012Validator(schema)
    admitted = [value for value in VALUES if strict.is_valid(value)]
    assert admitted
    assert all(loose.is_valid(value) for value in admitted)
    assert 1e300 not in admitted or "type" not in schema
    if tagless:
        assert not any("</" in str(value) for value in admitted)
