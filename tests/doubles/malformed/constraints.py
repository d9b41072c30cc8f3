"""Regexes, grammars and schemas that cost, or would cost, without end."""

import random
from typing import Any

from tests.doubles.malformed.attack import Attack, as_json, post
from tests.doubles.malformed.fields import right_body

CHAT = "/v1/chat/completions"

REGEXES = {
    "nested quantifiers": "(a*)*b",
    "more nested quantifiers": "((((a+)+)+)+)+$",
    "nested repetitions": "((a{1,1000}){1,1000}){1,1000}",
    "a million repetitions": "a{1000000}",
    "up to a million repetitions": "(ab|cd){0,1000000}",
    "repetitions out of range": "a{99999999999999999999}",
    "overlapping alternatives": "(a|aa|aaa)+b",
    "many alternatives": "|".join(f"w{i}" for i in range(50_000)),
    "a wide gap": "(.*a){200}",
    "a counted class": "[a-z]{1,100000}[0-9]{1,100000}",
    "look-ahead": "(?=a)b",
    "look-behind": "(?<=a)b",
    "a back-reference": r"(a)\1",
    "an open group": "(((",
    "an open class": "[a-",
    "Unicode classes": r"(\p{L}|\w|\S){1,100000}",
    "intersections": "(.*a.*)(.*b.*)(.*c.*)(.*d.*)(.*e.*)(.*f.*)" * 20,
    "deep groups": "(" * 10_000 + ")" * 10_000,
    "exponential determinization": "(a|b)*a" + "(a|b)" * 40,
}


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


SCHEMAS: dict[str, Any] = {
    "a remote $ref": {"$ref": "http://127.0.0.1:9/schema.json"},
    "a file $ref": {"$ref": "file:///etc/passwd"},
    "a missing $ref": {"$ref": "#/$defs/none"},
    "a $ref to itself": {"$ref": "#"},
    "a circle of $ref": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "endless objects": {
        "type": "object",
        "properties": {"next": {"$ref": "#"}},
        "required": ["next"],
        "additionalProperties": False,
    },
    "a billion items": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    "a million letters": {"type": "string", "minLength": 10**6},
    "too many items": {"type": "array", "minItems": 2**63},
    "fewer than none": {"type": "array", "maxItems": -1},
    "an empty range": {"type": "integer", "minimum": 5, "maximum": 1},
    "a wide range": {"type": "integer", "minimum": -(10**300), "maximum": 10**300},
    "a tiny step": {"type": "number", "multipleOf": 1e-300},
    "a catastrophic pattern": {"type": "string", "pattern": "^((a+)+)+$"},
    "a broken pattern": {"type": "string", "pattern": "("},
    "100,000 enums": {"enum": [f"value {i}" for i in range(100_000)]},
    "10,000 properties": {
        "type": "object",
        "properties": {f"p{i}": {"type": "integer"} for i in range(10_000)},
        "required": [f"p{i}" for i in range(10_000)],
        "additionalProperties": False,
    },
    "1,000 allOf": {"allOf": [{"type": "string", "maxLength": i + 1} for i in range(1000)]},
    "nested anyOf": {"anyOf": [{"anyOf": [{"type": "string"}] * 100}] * 100},
    "50 levels of objects": _nested(25),
    "unknown types": {"type": "whatever"},
    "a type that is a number": {"type": 5},
    "properties that are a list": {"type": "object", "properties": []},
    "not": {"not": {"type": "string"}},
    "conditions": {"if": {"type": "string"}, "then": {"minLength": 3}},
    "false": {"properties": {"a": False}, "required": ["a"]},
    "a 4 MB description": {"type": "string", "description": "d" * (4 << 20)},
    "a 4 MB constant": {"const": "c" * (4 << 20)},
}
GRAMMARS = {
    "no start": "begin: /a/",
    "itself": "start: start",
    "endless": 'start: "a" start',
    "doubling": "start: a a\na: b b\nb: c c\nc: d d\nd: e e\ne: /x{1000}/",
    "ambiguous": 'start: start start | "a" |',
    "empty": "",
    "noise": "%%% ::: |||",
    "a remote import": "%import http://127.0.0.1:9/x",
    "a file import": "%import /etc/passwd",
    "many rules": "start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(20_000)),
    "deep groups": "start: " + "(" * 5000 + '"a"' + ")" * 5000,
    "a broken regex": "start: /(/",
    "a wide repetition": 'start: ("a" | "b"){1000000}',
    "GBNF without end": 'root ::= root | "a"',
}


def constraint(source: random.Random, path: str, model: str) -> Attack:
    """One of them. It is honoured or refused, and neither may take long."""
    body = right_body(CHAT, model)
    kind = source.choice(["regex", "schema", "grammar", "pattern", "tool"])
    if kind == "regex":
        name = source.choice(sorted(REGEXES))
        body["regex"] = REGEXES[name]
    elif kind == "grammar":
        name = source.choice(sorted(GRAMMARS))
        body["grammar"] = GRAMMARS[name]
    elif kind == "pattern":
        name = source.choice(sorted(REGEXES))
        body["response_format"] = schema_format({"type": "string", "pattern": REGEXES[name]})
    else:
        name = source.choice(sorted(SCHEMAS))
        if kind == "tool":
            function = {"name": "f", "parameters": SCHEMAS[name]}
            body["tools"] = [{"type": "function", "function": function}]
            body["tool_choice"] = "required"
        else:
            body["response_format"] = schema_format(SCHEMAS[name])
    return Attack(f"{kind}: {name}", CHAT, post(CHAT, as_json(body)), may_succeed=True)


def schema_format(schema: Any) -> dict[str, Any]:
    """A response format of this schema."""
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
