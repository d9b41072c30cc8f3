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

    def _allowed(self, matcher: LLMatcher) -> Any:
        return np.flatnonzero(np.frombuffer(matcher.compute_logit_bias(), dtype=np.uint8))


def calls_in(form: AnswerFormat, tools: list[dict[str, Any]], text: str) -> list[tuple[str, Any]]:
    splitter = form.splitter(tools, starts_thinking=False)
    pieces = [*splitter.feed(text), *splitter.finish(FinishReason.STOP)]
    assert all(isinstance(piece, (CallStart, CallArguments)) for piece in pieces), (text, pieces)
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
    with pytest.raises(RequestError, match="'id'"):
        form.tool_grammar([tool("find", {**either, "required": ["id"]})], parallel=False)
