"""Answers split into text, reasoning and calls: the same however they are chopped."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.chat_templates import muse_spark
from mlx_lm.tokenizer_utils import TokenizerWrapper

from tbcluster.answers.format import AnswerFormat
from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Reasoning, Text
from tbcluster.answers.schemas import parser_tools
from tbcluster.core import FinishReason
from tests.doubles.tokenizers import FORMAT_TOKENS, answer_tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "stop"}},
]
ARGUMENTS = {"city": "São {Paulo}, \"x\" </b> 'y'", "days": 3}
# The arguments where a format cannot hold all of that.
PLAIN = {"city": "Paris", "days": 3}
_JSON = json.dumps(ARGUMENTS, ensure_ascii=False)
_CITY = ARGUMENTS["city"]
# For each parser an answer with calls of `weather` and `stop`, and the arguments of the first.
ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "json_tools": (
        f'<tool_call>\n{{"name": "weather", "arguments": {_JSON}}}\n</tool_call>\n'
        '<tool_call>\n{"arguments": {}, "name": "stop"}\n</tool_call>',
        ARGUMENTS,
    ),
    "mistral": (f"[TOOL_CALLS]weather[ARGS]{_JSON}[TOOL_CALLS]stop[ARGS]{{}}", ARGUMENTS),
    "kimi_k2": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
        f"<|tool_call_argument_begin|>{_JSON}<|tool_call_end|><|tool_call_begin|>functions.stop:1"
        "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        ARGUMENTS,
    ),
    "kimi_k3": (
        '<|open|>tools<|sep|><|open|>call tool="weather" index="1"<|sep|>'
        f'<|open|>argument key="city" type="string"<|sep|>{_CITY}<|close|>argument<|sep|>'
        '<|open|>argument key="days" type="number"<|sep|>3<|close|>argument<|sep|>'
        '<|close|>call<|sep|><|open|>call tool="stop" index="2"<|sep|><|close|>call<|sep|>'
        "<|close|>tools<|sep|>",
        ARGUMENTS,
    ),
    "qwen3_coder": (
        f"<tool_call>\n<function=weather>\n<parameter=city>\n{_CITY}\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=stop>\n</function>\n</tool_call>",
        ARGUMENTS,
    ),
    "glm47": (
        f"<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>{_CITY}</arg_value>\n"
        "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>\n<tool_call>stop</tool_call>",
        ARGUMENTS,
    ),
    "longcat": (
        "<longcat_tool_call>weather\n<longcat_arg_key>city</longcat_arg_key>\n"
        f"<longcat_arg_value>{_CITY}</longcat_arg_value>\n<longcat_arg_key>days</longcat_arg_key>"
        "<longcat_arg_value>3</longcat_arg_value></longcat_tool_call>"
        '<longcat_tool_call>{"name": "stop", "arguments": {}}</longcat_tool_call>',
        ARGUMENTS,
    ),
    "minimax_m2": (
        f'<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">{_CITY}</parameter>'
        '\n<parameter name="days">3</parameter>\n</invoke>\n<invoke name="stop">\n</invoke>\n'
        "</minimax:tool_call>",
        ARGUMENTS,
    ),
    "minicpm5": (
        f'<function name="weather"><param name="city"><![CDATA[{_CITY}]]></param>'
        '<param name="days">3</param></function>\n<function name="stop"></function>',
        ARGUMENTS,
    ),
    "muse_spark": (
        f'<atem:function_calls>\n<atem:invoke name="weather">\n'
        f'<atem:parameter name="city">{_CITY}</atem:parameter>\n'
        '<atem:parameter name="days">3</atem:parameter>\n</atem:invoke>\n'
        '<atem:invoke name="stop">\n</atem:invoke>\n</atem:function_calls>',
        ARGUMENTS,
    ),
    "gemma4": (
        f'<|tool_call>call:weather{{city:<|"|>{_CITY}<|"|>,days:3}}<tool_call|>'
        "<|tool_call>call:stop{}<tool_call|>",
        ARGUMENTS,
    ),
    "function_gemma": (
        "<start_function_call>call:weather{city:<escape>Paris<escape>,days:3}<end_function_call>"
        "<start_function_call>call:stop{}<end_function_call>",
        PLAIN,
    ),
    "pythonic": (
        '<|tool_call_start|>[weather(city="Paris", days=3), stop()]<|tool_call_end|>',
        PLAIN,
    ),
}
ANSWERS["laguna"] = ANSWERS["glm47"]
_EARLY = sorted(set(ANSWERS) - {"gemma4", "function_gemma", "pythonic"})


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AnswerFormat]:
    folder: Path = tmp_path_factory.mktemp("formats")
    return {name: AnswerFormat(answer_tokenizer(folder / name, name)) for name in FORMAT_TOKENS}


def split(
    form: AnswerFormat,
    parts: list[str],
    tools: list[dict[str, Any]] | None = TOOLS,
    *,
    reason: FinishReason = FinishReason.STOP,
    **options: Any,
) -> tuple[list[Piece], str | None]:
    splitter = form.splitter(tools, **{"starts_thinking": False, **options})
    pieces = [piece for part in parts for piece in splitter.feed(part)]
    pieces += splitter.finish(reason)
    return merged(pieces), splitter.finish_word


def merged(pieces: list[Piece]) -> list[Piece]:
    """Neighbours joined, and ids that were made up made equal."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if isinstance(piece, CallStart) and piece.call_id.startswith("call_"):
            piece = CallStart(piece.index, "call_", piece.name)
        if isinstance(piece, Text) and isinstance(last, Text):
            found[-1] = Text(last.text + piece.text)
        elif isinstance(piece, Reasoning) and isinstance(last, Reasoning):
            found[-1] = Reasoning(last.text + piece.text)
        elif isinstance(piece, CallArguments) and isinstance(last, CallArguments):
            assert piece.index == last.index
            found[-1] = CallArguments(last.index, last.text + piece.text)
        else:
            found.append(piece)
    return found


def chopped(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize("parser_type", sorted(ANSWERS))
def test_calls_of_every_format(parser_type: str, formats: dict[str, AnswerFormat]) -> None:
    answer, arguments = ANSWERS[parser_type]
    pieces, word = split(formats[parser_type], list(answer))
    starts = [piece for piece in pieces if isinstance(piece, CallStart)]
    texts = [piece.text for piece in pieces if isinstance(piece, CallArguments)]
    assert [(start.index, start.name) for start in starts] == [(0, "weather"), (1, "stop")]
    assert [json.loads(text) for text in texts] == [arguments, {}]
    assert len(pieces) == 4
    assert word == "tool_calls"
    if parser_type == "kimi_k2":
        assert [start.call_id for start in starts] == ["functions.weather:0", "functions.stop:1"]


@pytest.mark.parametrize("parser_type", sorted(ANSWERS))
def test_what_is_passed_on_is_what_the_parser_says_of_the_finished_block(
    parser_type: str, formats: dict[str, AnswerFormat]
) -> None:
    form = formats[parser_type]
    answer, _ = ANSWERS[parser_type]
    start = form.tokenizer.tool_call_start
    end = form.tokenizer.tool_call_end
    block = answer.split(start, 1)[1]
    block = block.split(end)[0] if end else block
    parsed = form.tokenizer.tool_parser(block.strip(), parser_tools(TOOLS))
    wanted = parsed[0] if isinstance(parsed, list) else parsed
    pieces, _ = split(form, list(answer))
    assert isinstance(pieces[0], CallStart)
    assert isinstance(pieces[1], CallArguments)
    assert pieces[0].name == wanted["name"]
    assert json.loads(pieces[1].text) == wanted["arguments"]


@pytest.mark.parametrize("parser_type", _EARLY)
def test_arguments_come_while_they_are_generated(
    parser_type: str, formats: dict[str, AnswerFormat]
) -> None:
    answer, _ = ANSWERS[parser_type]
    splitter = formats[parser_type].splitter(TOOLS, starts_thinking=False)
    first_half = answer[: answer.index("3") + 1]
    pieces = splitter.feed(first_half)
    assert pieces
    assert isinstance(pieces[0], CallStart)
    assert "Paulo" in "".join(piece.text for piece in pieces if isinstance(piece, CallArguments))
    assert splitter.num_calls == 0


@pytest.mark.parametrize("parser_type", sorted(ANSWERS))
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_chopping_changes_nothing(parser_type: str, data: st.DataObject) -> None:
    form = _FORMATS[parser_type]
    answer = ANSWERS[parser_type][0]
    texts = [
        "Well. ",
        "\n\n",
        "<think>",
        "</think>",
        "{",
        answer[:9],
        answer[9:60],
        answer[60:],
        answer,
    ]
    text = "".join(data.draw(st.lists(st.sampled_from(texts), max_size=6)))
    text = text[: data.draw(st.integers(0, len(text)))]
    reason = data.draw(st.sampled_from(FinishReason))
    options = {"reason": reason, "starts_thinking": data.draw(st.booleans())}
    whole = split(form, [text], **options)
    cuts = data.draw(st.lists(st.integers(0, 2000), max_size=12))
    assert split(form, chopped(text, cuts), **options) == whole
    assert split(form, list(text), **options) == whole


_FORMATS: dict[str, AnswerFormat] = {}


@pytest.fixture(scope="module", autouse=True)
def _for_properties(formats: dict[str, AnswerFormat]) -> None:
    # Hypothesis calls the test many times with fixtures made once.
    _FORMATS.update(formats)


@given(st.lists(st.sampled_from(["a", " ", "\n", "<tool_call>", "</tool_call>", "{}", "<to"])))
@settings(deadline=None)
def test_without_tools_and_reasoning_every_character_comes_out(parts: list[str]) -> None:
    text = "".join(parts)
    pieces, word = split(_FORMATS["json_tools"], parts, None)
    assert pieces == ([Text(text)] if text else [])
    assert word == "stop"


@pytest.mark.parametrize("parser_type", sorted(ANSWERS))
def test_calls_are_text_where_no_tools_were_asked_for(
    parser_type: str, formats: dict[str, AnswerFormat]
) -> None:
    answer, _ = ANSWERS[parser_type]
    assert split(formats[parser_type], list(answer), None) == ([Text(answer)], "stop")


def test_blanks_around_reasoning_and_calls_are_left_out(formats: dict[str, AnswerFormat]) -> None:
    call = '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'
    text = f"<think>\nHm, so.\n</think>\n\nI will. \n{call}\n{call}\n"
    pieces, _ = split(formats["json_tools"], list(text))
    assert pieces[:2] == [Reasoning("Hm, so."), Text("I will.")]
    assert pieces[2:] == [
        CallStart(0, "call_", "stop"),
        CallArguments(0, "{}"),
        CallStart(1, "call_", "stop"),
        CallArguments(1, "{}"),
    ]


def test_blanks_that_belong_to_the_text_stay(formats: dict[str, AnswerFormat]) -> None:
    text = "\n a \n\n b <x> \n"
    assert split(formats["json_tools"], list(text)) == ([Text(text)], "stop")


def test_a_prompt_may_have_opened_the_reasoning(formats: dict[str, AnswerFormat]) -> None:
    form = formats["json_tools"]
    parts = list("so\n</think>\n\nyes")
    assert split(form, parts, starts_thinking=True)[0] == [Reasoning("so"), Text("yes")]
    whole = "so\n</think>\n\nyes"
    assert split(form, parts, starts_thinking=True, splits_reasoning=False)[0] == [Text(whole)]


@pytest.mark.parametrize("tail", ["</tool_call>", ""])
@pytest.mark.parametrize(
    "block", ["not JSON", '{"no": "name"}', '{"name": "f", "arguments": 3}', "[1]"]
)
def test_what_is_no_call_comes_out_as_it_was(
    block: str, tail: str, formats: dict[str, AnswerFormat]
) -> None:
    text = f"So:\n<tool_call>{block}{tail}"
    assert split(formats["json_tools"], list(text)) == ([Text(text)], "stop")


def test_a_call_that_was_cut_off_before_its_name_is_text(formats: dict[str, AnswerFormat]) -> None:
    text = '<tool_call>\n{"name": "wea'
    pieces = split(formats["json_tools"], list(text), reason=FinishReason.LENGTH)
    assert pieces == ([Text(text)], "length")


@pytest.mark.parametrize("parser_type", ["json_tools", "qwen3_coder", "glm47", "minimax_m2"])
def test_a_call_that_was_cut_off_keeps_what_it_had(
    parser_type: str, formats: dict[str, AnswerFormat]
) -> None:
    answer, _ = ANSWERS[parser_type]
    cut = answer[: answer.index("Paulo") + 5]
    pieces, word = split(formats[parser_type], list(cut), reason=FinishReason.LENGTH)
    assert isinstance(pieces[1], CallArguments)
    assert "São {Paulo" in pieces[1].text
    assert not pieces[1].text.endswith("}")
    assert len(pieces) == 2
    assert word == "length"


def test_a_closing_brace_too_few_is_forgiven(formats: dict[str, AnswerFormat]) -> None:
    text = '<tool_call>{"name": "stop", "arguments": {"a": 1}</tool_call>'
    pieces, word = split(formats["json_tools"], list(text))
    assert pieces == [CallStart(0, "call_", "stop"), CallArguments(0, '{"a": 1}')]
    assert word == "tool_calls"


def test_arguments_that_are_no_json_are_no_call(formats: dict[str, AnswerFormat]) -> None:
    text = '<tool_call>{"name": "stop", "arguments": {"a": tru}}</tool_call>'
    pieces, word = split(formats["json_tools"], list(text))
    assert pieces[-1] == Text(text)
    assert word == "stop"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [('"{\\"a\\": 1}"', {"a": 1}), ("null", {}), ('{"a": "\\ud800"}', {"a": "\ud800"})],
)
def test_other_ways_to_write_arguments(
    arguments: str, wanted: dict[str, Any], formats: dict[str, AnswerFormat]
) -> None:
    for key in ("arguments", "parameters"):
        text = f'<tool_call>{{"name": "stop", "{key}": {arguments}}}</tool_call>'
        pieces, _ = split(formats["json_tools"], list(text))
        assert isinstance(pieces[1], CallArguments)
        assert json.loads(pieces[1].text) == wanted
        assert pieces[1].text.encode()


def test_a_value_that_its_type_forbids_is_no_call(formats: dict[str, AnswerFormat]) -> None:
    text = (
        "<tool_call>\n<function=weather>\n<parameter=days>\nmany\n</parameter>\n</function>\n"
        "</tool_call>"
    )
    pieces, word = split(formats["qwen3_coder"], list(text))
    assert pieces == [CallStart(0, "call_", "weather"), Text(text)]
    assert word == "stop"


def test_mistrals_older_list_of_calls(formats: dict[str, AnswerFormat]) -> None:
    text = '[TOOL_CALLS][{"name": "stop", "arguments": {"a": 1}, "id": "123456789"}]'
    pieces, _ = split(formats["mistral"], list(text))
    assert pieces == [CallStart(0, "123456789", "stop"), CallArguments(0, '{"a": 1}')]


def test_text_after_a_call_without_an_end_marker(formats: dict[str, AnswerFormat]) -> None:
    pieces, _ = split(formats["mistral"], list("[TOOL_CALLS]stop[ARGS]{} And now?"))
    assert pieces[-1] == Text("And now?")


def test_where_the_prompt_leaves_the_reasoning(formats: dict[str, AnswerFormat]) -> None:
    form = formats["json_tools"]
    assert form.think_start
    assert form.has_reasoning
    assert form.has_tools

    def prompt(text: str) -> list[int]:
        return list(form.tokenizer.encode(text, add_special_tokens=False))

    assert form.starts_thinking(prompt("a<think>\n"))
    assert not form.starts_thinking(prompt("a<think>\n\n</think>\n"))
    assert not form.starts_thinking(prompt("a"))
    assert not formats["mistral"].starts_thinking([5, 6])


def test_headers_of_a_format_that_names_its_readers(formats: dict[str, AnswerFormat]) -> None:
    inner = formats["muse_spark"].tokenizer
    form = AnswerFormat(
        TokenizerWrapper(
            inner._tokenizer,
            tool_call_start=inner.tool_call_start,
            tool_call_end=inner.tool_call_end,
            tool_parser=inner.tool_parser,
            response_format=muse_spark.RESPONSE_FORMAT,
        )
    )
    assert form.has_reasoning
    call, _ = ANSWERS["muse_spark"]
    text = (
        " to=self<|message|>Hm.<|eom|><|start|>assistant to=commentary<|message|>I look.<|eom|>"
        f"<|start|>assistant to=weather<|message|>{call}"
    )
    pieces, word = split(form, list(text))
    assert pieces[:2] == [Reasoning("Hm."), Text("I look.")]
    assert [piece.name for piece in pieces if isinstance(piece, CallStart)] == ["weather", "stop"]
    assert word == "tool_calls"
    answer = " to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Yes."
    assert split(form, list(answer))[0] == [Reasoning("Hm."), Text("Yes.")]
    assert split(form, list(answer), splits_reasoning=False)[0] == [Text("Hm.Yes.")]
    # An answer that a grammar forced has no header.
    assert split(form, list('{"a": 1}'), None)[0] == [Text('{"a": 1}')]
    assert split(form, list(text), None)[0][1:] == [Text(f"I look.{call}")]


def test_a_format_that_marks_its_answer_too(formats: dict[str, AnswerFormat]) -> None:
    call, _ = ANSWERS["kimi_k3"]
    text = (
        "<|open|>think<|sep|>Hm.<|close|>think<|sep|><|open|>response<|sep|>Yes."
        f"<|close|>response<|sep|>{call}<|close|>message<|sep|>"
    )
    pieces, _ = split(formats["kimi_k3"], list(text))
    assert pieces[:2] == [Reasoning("Hm."), Text("Yes.")]
    assert len(pieces) == 6
    assert split(formats["kimi_k3"], list(text), None)[0][:1] == [Reasoning("Hm.")]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("thought", ["", "<think>\nhm {</think>\n\n"])
def test_what_has_to_match_a_grammar_is_whole(
    size: int,
    tools: list[dict[str, Any]] | None,
    thought: str,
    formats: dict[str, AnswerFormat],
) -> None:
    answer = '{"a": "<think>b</think> <tool_call>c</tool_call>", "d": "<think>"} \n'
    splitter = formats["json_tools"].splitter(tools, starts_thinking=False, is_constrained=True)
    whole = thought + answer
    pieces = [p for i in range(0, len(whole), size) for p in splitter.feed(whole[i : i + size])]
    pieces += splitter.finish(FinishReason.STOP)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == answer
    reasoning = "".join(piece.text for piece in pieces if isinstance(piece, Reasoning))
    assert reasoning == ("hm {" if thought else "")
    assert splitter.finish_word == "stop"


def test_calls_are_calls_where_an_answer_would_have_to_match(
    formats: dict[str, AnswerFormat],
) -> None:
    for name in ("json_tools", "kimi_k2", "gemma4"):
        splitter = formats[name].splitter(TOOLS, starts_thinking=False, is_constrained=True)
        pieces = splitter.feed("\n" + ANSWERS[name][0]) + splitter.finish(FinishReason.STOP)
        assert [p.name for p in pieces if isinstance(p, CallStart)] == ["weather", "stop"]
        assert not any(isinstance(piece, Text) for piece in pieces)
