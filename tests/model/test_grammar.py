"""Grammars are made, checked, and refused with a reason; none hangs or crashes the process."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tbcluster.core import MAX_GRAMMAR_CHARS
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import RequestError
from tbcluster.model.grammar import (
    Grammars,
    compile_grammar,
    compute_mask,
    fitted,
    open_grammar_tokenizer,
)
from tbcluster.model.source import check_folder
from tbcluster.model.tokenizer import open_tokenizer

VOCAB_SIZE = 1280
TOKENIZER = open_tokenizer(check_folder(Path(MODEL_PATH)))
OPENED = open_grammar_tokenizer(TOKENIZER)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
# What a check may take on a busy machine; without bounds some of these take minutes.
MOST_SECONDS = 20.0


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENIZER, VOCAB_SIZE)


def admits(text: str, answer: str) -> bool:
    """Whether the grammar takes all of the answer, and nothing has to follow."""
    matcher = compile_grammar(OPENED, text)
    tokens = OPENED.tokenize_str(answer)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def test_json_is_written_as_python_writes_it(grammars: Grammars) -> None:
    schema = grammars.json_schema(PERSON)
    assert admits(schema, json.dumps({"name": "Ada", "age": 36}))
    for other in (
        '{"name":"Ada","age":36}',
        '{ "name": "Ada", "age": 36 }',
        '{"name": "Ada",\n"age": 36}',
        '{"name": "Ada"}',
        '{"name": "Ada", "age": "36"}',
        '{"name": "Ada", "age": 36, "more": 1}',
    ):
        assert not admits(schema, other)


def test_a_schema_cannot_loosen_the_white_space(grammars: Grammars) -> None:
    schema = {**PERSON, "x-guidance": {"whitespace_flexible": True, "lenient": True}}
    assert not admits(grammars.json_schema(schema), '{ "name": "Ada", "age": 36 }')


@pytest.mark.parametrize(
    ("answer", "is_object"),
    [
        ("{}", True),
        ('{"a": [1, {"b": null}]}', True),
        ('{"é": "ü\\n"}', True),
        ("[]", False),
        ('"a"', False),
        ("", False),
        ('{"a": 1', False),
    ],
)
def test_any_object(grammars: Grammars, answer: str, is_object: bool) -> None:
    assert admits(grammars.json_object(), answer) is is_object


def test_a_regex_matches_as_a_whole(grammars: Grammars) -> None:
    pattern = grammars.regex(r"[a-c]{2}\d|é+")
    assert [admits(pattern, text) for text in ("ab1", "éé", "ab", "ab12", "xab1")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "text",
    ['start: "yes" | "no" " "? /[0-9]+/', 'root ::= "yes" | "no" " "? [0-9]+'],
    ids=["lark", "gbnf"],
)
def test_lark_and_gbnf(grammars: Grammars, text: str) -> None:
    grammar = grammars.lark(text)
    assert admits(grammar, "yes")
    assert admits(grammar, "no 17")
    assert not admits(grammar, "no")


BAD_SCHEMAS: dict[str, Any] = {
    "no object": [1],
    "no JSON": {"const": {1, 2}},
    "NaN": {"const": float("nan")},
    "unknown type": {"type": "objectx"},
    "what llguidance lacks": {"not": {"type": "string"}},
    "unknown format": {"type": "string", "format": "colour"},
    "unsatisfiable": {"type": "object", "properties": {"a": False}, "required": ["a"]},
    "itself": {"$ref": "#"},
    "a circle": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "nowhere": {"$ref": "#/$defs/a"},
    "remote": {"$ref": "http://127.0.0.1:1/schema.json"},
    "a file": {"$ref": "file:///etc/passwd"},
}


@pytest.mark.parametrize("schema", BAD_SCHEMAS.values(), ids=BAD_SCHEMAS.keys())
def test_bad_schemas_are_refused_by_name(grammars: Grammars, schema: Any) -> None:
    with pytest.raises(RequestError, match="response_format") as caught:
        grammars.json_schema(schema, "response_format")
    assert caught.value.param == "response_format"


@pytest.mark.parametrize("pattern", ["(a", "(?=a)b", r"(a)\1", "[z-a]", "a{3,1}"])
def test_bad_expressions_are_refused_by_name(grammars: Grammars, pattern: str) -> None:
    with pytest.raises(RequestError) as caught:
        grammars.regex(pattern)
    assert caught.value.param == "regex"


@pytest.mark.parametrize(
    "text", ["", "start: foo", "start: start", 'root ::= (("a"', "start: @sub", "hello"]
)
def test_bad_grammars_are_refused_by_name(grammars: Grammars, text: str) -> None:
    with pytest.raises(RequestError) as caught:
        grammars.lark(text)
    assert caught.value.param == "grammar"


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def references(depth: int) -> dict[str, Any]:
    links = {f"{i}": {"items": {"$ref": f"#/$defs/{i + 1}"}} for i in range(depth)}
    return {"$ref": "#/$defs/0", "$defs": {**links, f"{depth}": {"type": "string"}}}


def alternatives(width: int) -> dict[str, Any]:
    options = [{"properties": {f"{i}": {"type": "integer"}}} for i in range(width)]
    return {"allOf": [{"anyOf": options} for _ in range(width)]}


HOSTILE_SCHEMAS = {
    "deep": nested(400),
    "deeper than Python": nested(100_000),
    "a chain of references": references(2900),
    "a product of alternatives": alternatives(12),
    "many optional properties": {"properties": {f"p{i}": {} for i in range(8000)}},
    "many values": {"enum": [f"value {i}" for i in range(8000)]},
    "a long array": {"type": "array", "minItems": 10**9, "items": nested(20)},
    "a long text": {"type": "string", "minLength": 10**9, "maxLength": 10**18},
    "a large expression": {"type": "string", "pattern": "^(a|b){1,5000}(.*a.{1,500}){10}$"},
    "large": {"description": "x" * MAX_GRAMMAR_CHARS},
}
HOSTILE_EXPRESSIONS = {
    "repetitions": "((a{1,100}){1,100}){1,100}",
    "many of many": "(a|b|c|[d-z]{5,1000}){1000,100000}",
    "ambiguous": "(x+x+)+y",
    "optional": "a?" * 5000 + "a" * 5000,
    "deep": "(" * 5000 + "a" + ")" * 5000,
    "large": "a" * (MAX_GRAMMAR_CHARS + 1),
}
HOSTILE_GRAMMARS = {
    "deep": "start: " + "(" * 40_000 + '"a"' + ")" * 40_000,
    "deep GBNF": "root ::= " + "(" * 40_000 + '"a"' + ")" * 40_000,
    "a chain of rules": "start: r0\n"
    + "\n".join(f"r{i}: r{i + 1}" for i in range(8000))
    + '\nr8000: "b"',
    "a chain of terminals": "start: R0\n"
    + "\n".join(f'R{i}: "a" R{i + 1}' for i in range(7000))
    + '\nR7000: "b"',
    "doubling terminals": "start: R0\n"
    + "\n".join(f"R{i}: R{i + 1} R{i + 1}" for i in range(40))
    + '\nR40: "b"',
    "nested stars": "start: r0\n"
    + "\n".join(f'r{i}: (r{i + 1} | "x")*' for i in range(999))
    + '\nr999: "b"',
    "many rules": "start: r0\n"
    + "\n".join(f'r{i}: (r{i + 1} | "x")*' for i in range(5000))
    + '\nr5000: "b"',
    "ambiguous": 'start: start start | "a" | ""',
    "blank lines": "\n" * (MAX_GRAMMAR_CHARS - 1) + '"',
    "one long word": 'start: "a"\n' + "a" * (MAX_GRAMMAR_CHARS - 11),
    "a chain of GBNF rules": "root ::= r0\n"
    + "\n".join(f"r{i} ::= r{i + 1}" for i in range(8000))
    + '\nr8000 ::= "b"',
    "many alternatives": "start: " + "| ".join(['"a"'] * 20_000),
    "intersections": "start: R\nR: /(.*a.{12})/ & /(.*b.{17})/ & /(.*c.{19})/",
}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(pytest.param("json_schema", x, id=f"schema: {k}") for k, x in HOSTILE_SCHEMAS.items()),
        *(pytest.param("regex", x, id=f"regex: {k}") for k, x in HOSTILE_EXPRESSIONS.items()),
        *(pytest.param("lark", x, id=f"grammar: {k}") for k, x in HOSTILE_GRAMMARS.items()),
    ],
)
def test_hostile_ones_are_served_or_refused_in_time(
    grammars: Grammars, kind: str, value: Any
) -> None:
    started = time.monotonic()
    refusal = None
    try:
        assert len(getattr(grammars, kind)(value)) <= MAX_GRAMMAR_CHARS
    except RequestError as error:
        refusal = error
    assert refusal is None or (refusal.param and len(str(refusal)) < 1000)
    assert time.monotonic() - started < MOST_SECONDS


def test_a_tokenizer_that_llguidance_does_not_know() -> None:
    class Slow:
        eos_token_ids = (1,)
        _tokenizer = object()

    with pytest.raises(RequestError, match="cannot be used with this model") as caught:
        Grammars(Slow(), VOCAB_SIZE).json_object("response_format")  # type: ignore[arg-type]
    assert caught.value.param == "response_format"


def test_tokens_that_the_model_lacks_do_not_count() -> None:
    few = Grammars(TOKENIZER, 2)
    with pytest.raises(RequestError, match="no token that it could begin with"):
        few.regex("[a-z]+")


def test_many_threads_share_one_tokenizer() -> None:
    shared = Grammars(TOKENIZER, VOCAB_SIZE)
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(shared.json_object())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [shared.json_object()] * 8


@pytest.mark.parametrize("vocab_size", [1, 31, 32, 33, 1000, 1280, 1281, 1311, 5000])
def test_a_mask_fits_logits_of_any_width(vocab_size: int) -> None:
    mask = compute_mask(compile_grammar(OPENED, Grammars(TOKENIZER, VOCAB_SIZE).regex("[a-z]+")))
    known = unpacked(mask, VOCAB_SIZE)
    got = unpacked(fitted(mask, vocab_size), 2 * vocab_size)
    assert got == [bit and token < vocab_size for token, bit in enumerate(known)][: len(got)] + [
        False
    ] * max(0, len(got) - VOCAB_SIZE)


def unpacked(mask: Any, num_bits: int) -> list[bool]:
    words = mask.tolist()
    return [bool(words[i // 32] >> (i % 32) & 1) for i in range(min(num_bits, 32 * len(words)))]


def test_reasoning_is_left_free_where_the_model_reasons(grammars: Grammars) -> None:
    text = grammars.json_object()
    assert grammars.for_prompt(text, [1, 2]).think_end == ()

    class Thinking:
        has_thinking = True
        think_start_tokens = (5,)
        think_end_tokens = (6, 7)

        def rfind_think_start(self, tokens: list[int]) -> int:
            return max((i for i, token in enumerate(tokens) if token == 5), default=-1)

        def rfind_think_end(self, tokens: list[int]) -> int:
            return max((i for i, token in enumerate(tokens) if token == 6), default=-1)

    thinking = Grammars(Thinking(), VOCAB_SIZE)  # type: ignore[arg-type]
    gated = thinking.for_prompt(text, (1, 5, 2))
    assert (gated.think_start, gated.think_end, gated.is_thinking) == ((5,), (6, 7), True)
    assert not thinking.for_prompt(text, (1, 5, 6, 7)).is_thinking
    assert not thinking.for_prompt(text, (1, 2)).is_thinking


def test_one_that_takes_too_long_is_refused_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = Grammars(TOKENIZER, VOCAB_SIZE)
    shared.json_object()
    monkeypatch.setattr("tbcluster.model.grammar.MOST_SECONDS", 0.0)
    with pytest.raises(RequestError, match="not compiled after 0 s"):
        shared.lark(HOSTILE_GRAMMARS["many alternatives"])
    monkeypatch.undo()
    assert shared.json_object()
