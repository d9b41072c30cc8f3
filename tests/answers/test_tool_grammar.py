"""Whatever a forced call's grammar admits is read back as a call that satisfies its schema."""

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from tbcluster.answers.format import AnswerFormat
from tbcluster.answers.pieces import CallArguments, CallStart
from tbcluster.core import FinishReason
from tbcluster.errors import RequestError
from tests.doubles.tokenizers import FORMAT_TOKENS, answer_tokenizer

FORCED = sorted(set(FORMAT_TOKENS) - {"muse_spark"})
# What random text would hardly ever spell.
CLOSINGS = (
    *("\n</parameter>\n", "</parameter>\n", "</arg_value>", "</longcat_arg_value>", "</param>"),
    *("]]></param>", '<|"|>', "<escape>", '"', "}", "]"),
)
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"enum": ["C", "F"]},
        "days": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 14}, {"type": "null"}]},
        "exact": {"type": "boolean"},
        "zoom": {"type": "number"},
        "code": {"type": "string", "maxLength": 5},
    },
    "required": ["city", "days"],
}
NESTED = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "at": {"$ref": "#/$defs/point"},
    },
    "required": ["tags"],
    "$defs": {
        "point": {
            "type": "object",
            "properties": {"x": {"type": "integer"}, "name": {"type": "string"}},
            "required": ["x"],
            "additionalProperties": False,
        }
    },
}


def tool(name: str, parameters: dict[str, Any] | None) -> dict[str, Any]:
    function = {"name": name} if parameters is None else {"name": name, "parameters": parameters}
    return {"type": "function", "function": function}


class Walk:
    """Random answers that a grammar admits."""

    def __init__(self, tokenizer: Any, lark: str) -> None:
        self._tokenizer = tokenizer
        self._engine = from_tokenizer(tokenizer._tokenizer)
        self._grammar = LLMatcher.grammar_from_lark(lark)
        error = LLMatcher.validate_grammar(self._grammar, self._engine)
        assert not error, f"{error}\n{lark}"
        self._closings = [tokenizer.encode(text, add_special_tokens=False) for text in CLOSINGS]

    def answer(self, seed: int) -> str:
        chance = random.Random(seed)
        matcher = LLMatcher(self._engine, self._grammar)
        tokens: list[int] = []
        while not matcher.is_stopped() and len(tokens) < 4000:
            allowed = self._allowed(matcher)
            assert len(allowed), matcher.get_error()
            if matcher.is_accepting() and chance.random() < 0.7:
                break
            closing = chance.choice(self._closings)
            picked = int(chance.choice(allowed))
            for token in closing if chance.random() < 0.5 else [picked]:
                if token not in self._allowed(matcher) or token == self._tokenizer.eos_token_id:
                    break
                assert matcher.consume_token(token)
                tokens.append(token)
        assert matcher.is_accepting() or matcher.is_stopped(), self._tokenizer.decode(tokens)
        detokenizer = self._tokenizer.detokenizer
        for token in tokens:
            detokenizer.add_token(token)
        detokenizer.finalize()
        return str(detokenizer.text)

    def admits(self, text: str) -> bool:
        matcher = LLMatcher(self._engine, self._grammar)
        for token in self._tokenizer.encode(text, add_special_tokens=False):
            if token not in self._allowed(matcher) or not matcher.consume_token(token):
                return False
        return matcher.is_accepting() or matcher.is_stopped()

    def _allowed(self, matcher: LLMatcher) -> Any:
        return np.flatnonzero(np.frombuffer(matcher.compute_logit_bias(), dtype=np.uint8))


def calls_in(form: AnswerFormat, tools: list[dict[str, Any]], text: str) -> list[tuple[str, Any]]:
    splitter = form.splitter(tools, starts_thinking=False)
    pieces = [piece for char in text for piece in splitter.feed(char)]
    pieces += splitter.finish(FinishReason.STOP)
    assert all(isinstance(piece, (CallStart, CallArguments)) for piece in pieces), text
    names = [piece.name for piece in pieces if isinstance(piece, CallStart)]
    arguments = ["" for _ in names]
    for piece in pieces:
        if isinstance(piece, CallArguments):
            arguments[piece.index] += piece.text
    assert splitter.num_calls == len(names)
    return [(name, json.loads(text)) for name, text in zip(names, arguments, strict=True)]


@pytest.mark.parametrize("parser_type", FORCED)
def test_admitted_answers_are_calls_that_satisfy_their_schema(
    parser_type: str, tmp_path: Path
) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, parser_type))
    tools = [tool("weather", WEATHER), tool("stop", None)]
    if parser_type != "function_gemma":
        tools.append(tool("mark", NESTED))
    schemas = {one["function"]["name"]: one["function"].get("parameters", {}) for one in tools}
    walk = Walk(form.tokenizer, form.tool_grammar(tools, parallel=True))
    seen, most = set(), 0
    for seed in range(40):
        text = walk.answer(seed)
        calls = calls_in(form, tools, text)
        assert calls
        for name, arguments in calls:
            jsonschema.validate(arguments, schemas[name])
        seen |= {name for name, _ in calls}
        most = max(most, len(calls))
    assert seen == set(schemas)
    assert most > 1


@pytest.mark.parametrize("parser_type", FORCED)
def test_without_parallel_there_is_one_call(parser_type: str, tmp_path: Path) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, parser_type))
    tools = [tool("stop", None)]
    walk = Walk(form.tokenizer, form.tool_grammar(tools, parallel=False))
    for seed in range(5):
        assert calls_in(form, tools, walk.answer(seed)) == [("stop", {})]


def test_mistrals_older_list_of_calls(tmp_path: Path) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, "mistral", special=["[TOOL_CALLS]"]))
    tools = [tool("weather", WEATHER), tool("stop", None)]
    walk = Walk(form.tokenizer, form.tool_grammar(tools, parallel=True))
    for seed in range(10):
        text = walk.answer(seed)
        assert "[ARGS]" not in text
        for name, arguments in calls_in(form, tools, text):
            assert name == "stop" or jsonschema.validate(arguments, WEATHER) is None


@pytest.mark.parametrize(
    ("parser_type", "schema"),
    [
        ("qwen3_coder", {"type": "string", "pattern": "^[a-f]{2,4}$"}),
        ("glm47", {"type": "string", "minLength": 2, "maxLength": 4}),
        ("minimax_m2", {"type": "string", "pattern": "[0-9]"}),
        ("minicpm5", {"enum": ["null", "a\nb", "plain"]}),
        ("qwen3_coder", {"type": "object", "properties": {"a": {"type": "string"}}}),
        ("glm47", {"type": ["integer", "string"]}),
        ("longcat", {"type": "object"}),
        ("pythonic", {"anyOf": [{"type": "string"}, {"type": "array"}, {"type": "null"}]}),
        ("gemma4", {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}),
        ("function_gemma", {"type": "integer", "minimum": -3, "maximum": 3}),
        ("kimi_k3", {"type": "number"}),
        ("json_tools", {"type": "object"}),
    ],
)
def test_one_parameter_of_many_kinds(
    parser_type: str, schema: dict[str, Any], tmp_path: Path
) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, parser_type))
    whole = {"type": "object", "properties": {"it": schema}, "required": ["it"]}
    tools = [tool("use", whole)]
    walk = Walk(form.tokenizer, form.tool_grammar(tools, parallel=False))
    for seed in range(15):
        [(name, arguments)] = calls_in(form, tools, walk.answer(seed))
        assert name == "use"
        jsonschema.validate(arguments, whole)


@pytest.mark.parametrize("parser_type", sorted(set(FORCED) - {"minicpm5"}))
def test_a_free_answer_may_hold_calls_that_satisfy_their_schema(
    parser_type: str, tmp_path: Path
) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, parser_type))
    tools = [tool("weather", WEATHER)]
    lark = form.tool_grammar(tools, parallel=True, otherwise="text")
    forced = Walk(form.tokenizer, form.tool_grammar(tools, parallel=False))
    call = forced.answer(1).strip()
    walk = Walk(form.tokenizer, lark)
    response = "<|open|>response<|sep|>Hi.<|close|>response<|sep|>"
    for text in (f"Hi <b>.\n{call}", call, response if parser_type == "kimi_k3" else "Hi.", ""):
        assert walk.admits(text), text
    assert not walk.admits(call.replace("city", "town"))


def test_a_free_answer_is_refused_where_calls_begin_with_text(tmp_path: Path) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, "minicpm5"))
    with pytest.raises(RequestError, match="strict") as caught:
        form.tool_grammar([tool("stop", None)], parallel=True, otherwise="text")
    assert caught.value.param == "tools"


def test_a_format_that_cannot_be_forced_is_refused(tmp_path: Path) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, "muse_spark"))
    with pytest.raises(RequestError, match="muse_spark") as caught:
        form.tool_grammar([tool("stop", None)], parallel=False)
    assert caught.value.param == "tool_choice"


def test_a_parameter_that_a_format_cannot_hold_is_refused_only_if_it_is_required(
    tmp_path: Path,
) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, "qwen3_coder"))
    either = {"properties": {"id": {"type": ["integer", "string"]}}}
    assert form.tool_grammar([tool("find", either)], parallel=False)
    null = {"properties": {"id": {"const": "null"}}}
    for schema in (either, null):
        with pytest.raises(RequestError, match="'id'") as caught:
            form.tool_grammar([tool("find", {**schema, "required": ["id"]})], parallel=False)
        assert caught.value.param == "tool_choice"


@pytest.mark.parametrize("parser_type", ["qwen3_coder", "gemma4", "pythonic", "json_tools"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"a": {"type": "string", "enum": 5}}, "required": 3},
        {"properties": {"a": {"type": "integer", "minimum": "x"}}, "required": ["a"]},
        {"properties": {"a": {"type": "string", "pattern": 3}}, "required": ["a"]},
    ],
)
def test_a_schema_that_is_none_is_refused(
    parser_type: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, parser_type))
    try:
        lark = form.tool_grammar([tool("f", parameters)], parallel=False)
    except RequestError:
        return
    # What is passed on as it came is llguidance's to refuse.
    assert LLMatcher.validate_grammar(
        LLMatcher.grammar_from_lark(lark), from_tokenizer(form.tokenizer._tokenizer)
    )


def test_a_schema_that_unfolds_without_end_is_refused(tmp_path: Path) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, "gemma4"))
    wide = {
        f"d{level}": {
            "type": "object",
            "properties": {f"p{n}": {"$ref": f"#/$defs/d{level + 1}"} for n in range(10)},
        }
        for level in range(7)
    }
    loop = {"type": "object", "properties": {"a": {"$ref": "#/$defs/loop"}}}
    definitions = {**wide, "d7": {"type": "boolean"}, "loop": loop}
    for start in ("d0", "loop"):
        schema = {
            "properties": {"a": {"$ref": f"#/$defs/{start}"}},
            "required": ["a"],
            "$defs": definitions,
        }
        with pytest.raises(RequestError, match="too many parts"):
            form.tool_grammar([tool("f", schema)], parallel=False)


def test_a_pattern_with_slashes_stays_a_pattern(tmp_path: Path) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path, "qwen3_coder"))
    for pattern, wanted in ((r"^a/b\\/c$", "a/b\\/c"), ("^\n/$", "\n/")):
        schema = {"properties": {"a": {"type": "string", "pattern": pattern}}, "required": ["a"]}
        tools = [tool("f", schema)]
        walk = Walk(form.tokenizer, form.tool_grammar(tools, parallel=False))
        assert calls_in(form, tools, walk.answer(0)) == [("f", {"a": wanted})]
