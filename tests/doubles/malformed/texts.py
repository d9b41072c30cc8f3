"""Bodies whose JSON is broken, deep, huge or not even text."""

import random
from collections.abc import Callable
from typing import Any

from tests.doubles.malformed.attack import RAW, Attack, as_json, post, with_value
from tests.doubles.malformed.fields import PATHS, TEXT_FIELD, right_body

CHAT = "/v1/chat/completions"
MIB = 1 << 20
DEPTHS = (100, 10_000, 1_000_000)

# Where free-form values go.
ROOMY_FIELDS = (
    "metadata",
    "messages.0.content",
    "chat_template_kwargs",
    "tools.0.function.parameters",
    "response_format.json_schema.schema",
    "logit_bias",
    "no_such_field",
)
BAD_UTF8 = {
    "a lone byte": b"\xff",
    "a cut sequence": b"\xe2\x82",
    "a wrong continuation": b"\xc3\x28",
    "an encoded surrogate": b"\xed\xa0\x80",
    "an overlong slash": b"\xc0\xaf",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "UTF-16": "hello".encode("utf-16"),
}
BAD_ESCAPES = {
    "a high surrogate": rb"\ud800",
    "a low surrogate": rb"\udfff",
    "surrogates in the wrong order": rb"\udc00\ud800",
    "a high surrogate before a letter": rb"\ud83dA",
    "a cut escape": rb"\u12",
    "an unknown escape": rb"\x41",
    "a raw NUL": b"\x00",
    "a raw line feed": b"\n",
}
LONG_TEXTS: dict[str, Callable[[], str]] = {
    "4 MB of one letter": lambda: "x" * 4 * MIB,
    "4 MB of blanks": lambda: " " * 4 * MIB,
    "4 MB of words": lambda: "hello world " * (4 * MIB // 12),
    "4 MB of emoji": lambda: "\U0001f469\u200d" * (4 * MIB // 7),
    "4 MB of combining marks": lambda: "a" + "\u0301" * (2 * MIB),
    "4 MB of control tokens": lambda: "<|end|>" * (4 * MIB // 7),
    "4 MB of line feeds": lambda: "\n" * 4 * MIB,
}


def bad_utf8(source: random.Random, path: str, model: str) -> Attack:
    """A text that is not UTF-8."""
    name = source.choice(sorted(BAD_UTF8))
    return _with_text(path, model, name, BAD_UTF8[name])


def bad_escape(source: random.Random, path: str, model: str) -> Attack:
    """A text with half a character, or with what JSON does not allow in texts."""
    name = source.choice(sorted(BAD_ESCAPES))
    if source.random() < 0.3:
        body = as_json({**right_body(path, model), RAW: 1}, b'"a' + BAD_ESCAPES[name] + b'"')
        return Attack(f"{name} in a key", path, post(path, body))
    return _with_text(path, model, name, BAD_ESCAPES[name])


def deep(source: random.Random, path: str, model: str) -> Attack:
    """A value that nests."""
    depth = source.choice(DEPTHS)
    where = source.choice(ROOMY_FIELDS)
    opening, inner, closing = source.choice([(b"[", b"", b"]"), (b'{"a":', b"1", b"}")])
    is_whole = source.random() < 0.8
    value = opening * depth + (inner + closing * depth if is_whole else b"")
    body = with_value(right_body(path, model), where, RAW)
    name = f"{where} nests {depth:,} deep" + ("" if is_whole else " and never ends")
    return Attack(name, path, post(path, as_json(body, value)))


def huge_text(source: random.Random, path: str, model: str) -> Attack:
    """A message of four megabytes."""
    name = source.choice(sorted(LONG_TEXTS))
    body = with_value(right_body(path, model), TEXT_FIELD[path], LONG_TEXTS[name]())
    if path == "/api/embed":
        body["truncate"] = False  # or it would be cut and embedded, as Ollama does
    return Attack(name, path, post(path, as_json(body)))


def huge_field(source: random.Random, path: str, model: str) -> Attack:
    """A field, or the name of one, that is far too long."""
    fields: dict[str, tuple[str, Any]] = {
        "a 4 MB model name": ("model", "m" * 4 * MIB),
        "a 4 MB field name": ("f" * 4 * MIB, 1),
        "a 4 MB stop text": ("stop", "s" * 4 * MIB),
        "100,000 stop texts": ("stop", ["s"] * 100_000),
        "100,000 unknown stop sequences": ("stop_sequence", ["s"] * 100_000),
        "a 4 MB regex": ("regex", "(" * 2 * MIB + ")" * 2 * MIB),
        "a 4 MB grammar": ("grammar", "start: " + "a " * 2 * MIB),
        "100,000 biases": ("logit_bias", {str(i): "x" for i in range(100_000)}),
        "10,000 tools": ("tools", [{"type": "function"}] * 10_000),
        "a 4 MB tool name": ("tools.0.function.name", "n" * 4 * MIB),
        "100,000 unknown fields": ("extra", dict.fromkeys(map(str, range(100_000)), 1)),
        "100,000 empty messages": ("messages", [{}] * 100_000),
        "a million nulls": ("messages", [None] * 10**6),
    }
    name = source.choice(sorted(fields))
    where, value = fields[name]
    body = right_body(path, model)
    body = {**body, where: value} if len(where) > 100 else with_value(body, where, value)
    return Attack(name, path, post(path, as_json(body)))


def huge_chat(source: random.Random, path: str, model: str) -> Attack:
    """A chat in which something else than a question is huge: some of it templates leave out."""
    question = {"role": "user", "content": "Hi"}
    said = "x" * 4 * MIB
    function = {"name": "f", "description": said, "parameters": {"type": "object"}}
    chats: dict[str, tuple[str, Any]] = {
        "a 4 MB answer": ("messages", [{"role": "assistant", "content": said}, question]),
        "4 MB of reasoning": (
            "messages",
            [{"role": "assistant", "content": "x", "reasoning_content": said}, question],
        ),
        "100,000 messages": ("messages", [question] * 100_000),
        "a message of 100,000 parts": (
            "messages",
            [{"role": "user", "content": [{"type": "text", "text": "word "}] * 100_000}],
        ),
        "a 4 MB description": ("tools", [{"type": "function", "function": function}]),
    }
    name = source.choice(sorted(chats))
    where, value = chats[name]
    body = {**right_body(CHAT, model), where: value}
    return Attack(name, CHAT, post(CHAT, as_json(body)), may_succeed=True)


def template_kwargs(source: random.Random, path: str, model: str) -> Attack:
    """Variables for the chat template that are arguments of what renders it."""
    names = ("tokenizer", "messages", "conversation", "tools", "tokenize", "chat_template", "self")
    name = source.choice([*names, "add_generation_prompt", "check_length", "return_tensors"])
    value: Any = source.choice([None, True, 5, "x", [], {"a": 1}])
    body = {**right_body(CHAT, model), "chat_template_kwargs": {name: value}}
    what = f"chat_template_kwargs: {name} is {value!r}"
    return Attack(what, CHAT, post(CHAT, as_json(body)), may_succeed=True)


def not_an_object(source: random.Random, path: str, model: str) -> Attack:
    """JSON that is no object, or no JSON."""
    bodies = {
        "an empty body": b"",
        "blanks": b"   \r\n\t ",
        "null": b"null",
        "a list": b"[]",
        "a text": b'"hello"',
        "a number": b"5",
        "true": b"true",
        "two objects": b"{}{}",
        "a trailing comma": b'{"model": "x",}',
        "a comment": b'{"model": "x" /* hi */}',
        "single quotes": b"{'model': 'x'}",
        "a byte order mark": b"\xef\xbb\xbf{}",
        "zeros": bytes(1000),
        "noise": source.randbytes(2000),
        "an empty object": b"{}",
        "XML": b"<?xml version='1.0'?><model/>",
        "a form": b"model=x&prompt=y",
        "gzip": b"\x1f\x8b\x08\x00" + source.randbytes(200),
    }
    name = source.choice(sorted(bodies))
    return Attack(name, path, post(path, bodies[name]))


def truncated(source: random.Random, path: str, model: str) -> Attack:
    """JSON that ends too soon, with a Content-Length that agrees."""
    body = as_json(right_body(path, model))
    kept = source.randrange(1, len(body))
    return Attack(f"JSON cut after {kept} bytes", path, post(path, body[:kept]))


def wrong_content_type(source: random.Random, path: str, model: str) -> Attack:
    """A right body under another name. Ollama's clients do not care, and are answered."""
    types = (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "image/png",
        "x" * 5000,
        "/",
        "application/",
    )
    content_type = source.choice(types)
    data = post(path, as_json(right_body(path, model)), content_type=content_type)
    name = f"content type {content_type[:40]}"
    return Attack(name, path, data, may_succeed=path.startswith("/api/"))


def odd_text(source: random.Random, path: str, model: str) -> Attack:
    """Characters that are right JSON and unusual in any text: an answer is fine."""
    text = source.choice(
        ["\x00", "\x00" * 50, "\ufeff", "\u202e", "\ufffe\uffff", "\U0010ffff", "\x7f\x1b[31m"]
    )
    body = with_value(right_body(path, model), TEXT_FIELD[path], text)
    return Attack(f"the text {text[:3]!r}", path, post(path, as_json(body)), may_succeed=True)


def _with_text(path: str, model: str, name: str, content: bytes) -> Attack:
    body = with_value(right_body(path, model), TEXT_FIELD[path], RAW)
    return Attack(name, path, post(path, as_json(body, b'"a' + content + b'b"')))


# Maker -> how often, against the others.
MAKERS = {
    bad_utf8: 3,
    bad_escape: 4,
    deep: 5,
    huge_text: 4,
    huge_field: 4,
    huge_chat: 3,
    template_kwargs: 2,
    not_an_object: 3,
    truncated: 2,
    wrong_content_type: 1,
    odd_text: 1,
}
assert set(TEXT_FIELD) == set(PATHS)
