"""Fields of POST /v1/responses: honoured, or refused by name."""

from typing import Any

import pytest
from pydantic import ValidationError

from tbcluster.server.ask import Constraint
from tbcluster.server.responses.schemas import ResponsesRequest

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
LOGPROBS = "message.output_text.logprobs"


def parse(**fields: Any) -> ResponsesRequest:
    return ResponsesRequest.model_validate({"model": "m", "input": "hello", **fields})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"messages": []}, "messages"),
        ({"input": [{"type": "computer_call"}]}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "refusal", "text": "no"}]}]},
            "input",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        (
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "g"}],
                },
            },
            "tool_choice",
        ),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format"),
        ({"text": {"format": {"type": "json_object"}}, "regex": "a"}, "text.format"),
        ({"stop": [""]}, "stop"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(**fields)
    (error,) = caught.value.errors()
    assert error["type"] == "refused"
    assert error["ctx"]["param"] == param
    assert param in error["msg"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"input": 5}, ("input",)),
        ({"input": []}, ("input",)),
        ({"input": [{"role": "user", "content": "x"}] * 4097}, ("input",)),
        ({"input": [5]}, ("input", 0, "message")),
        ({"input": [{"role": "tool", "content": "x"}]}, ("input", 0, "message", "role")),
        ({"input": [{"type": "function_call"}]}, ("input", 0, "function_call", "call_id")),
        (
            {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}]},
            ("input", 0, "reasoning", "encrypted_content"),
        ),
        ({"truncation": "auto"}, ("truncation",)),
        ({"text": {"verbosity": "low"}}, ("text", "verbosity")),
        ({"reasoning": {"summary": "detailed"}}, ("reasoning", "summary")),
        ({"reasoning": {"effort": "huge"}}, ("reasoning", "effort")),
        ({"metadata": {str(n): "v" for n in range(17)}}, ("metadata",)),
        ({"metadata": {"k": 1}}, ("metadata", "k")),
        ({"max_output_tokens": 0}, ("max_output_tokens",)),
        ({"max_output_tokens": "5"}, ("max_output_tokens",)),
        ({"top_logprobs": 21}, ("top_logprobs",)),
        ({"store": "yes"}, ("store",)),
        (
            {"stream": True, "stream_options": {"include_usage": True}},
            ("stream_options", "include_usage"),
        ),
    ],
)
def test_what_is_malformed(fields: dict[str, Any], path: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(**fields)
    assert caught.value.errors()[0]["loc"] == path


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "service_tier": "flex"},
        {"background": False, "conversation": None, "prompt": None},
        {"include": [LOGPROBS, "reasoning.encrypted_content"], "top_logprobs": 0},
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}, "truncation": "disabled"},
        {"reasoning": {"effort": "high", "summary": "auto"}, "metadata": {"k": "v"}},
        {"stream": True, "stream_options": {"include_obfuscation": False}},
        {"instructions": None, "tools": None, "tool_choice": None, "reasoning": None},
    ],
)
def test_what_is_taken(fields: dict[str, Any]) -> None:
    parse(**fields)


def test_options_in_the_neutral_form() -> None:
    schema = {"type": "object"}
    text = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}}
    options = parse(
        max_output_tokens=7, text=text, top_logprobs=3, include=[LOGPROBS], seed=5, top_k=2
    ).response_options()
    assert options.max_tokens == 7
    assert options.num_choices == 1
    assert options.num_logprobs == 3
    assert (options.seed, options.top_k) == (5, 2)
    assert options.constraint == Constraint("json_schema", schema, "text.format")
    assert parse(include=[LOGPROBS]).response_options().num_logprobs == 0
    assert parse().response_options().num_logprobs is None


def test_tools_in_the_neutral_form() -> None:
    tools = [TOOL, {"type": "function", "name": "g", "description": "d", "defer_loading": False}]
    f = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object"}, "strict": True},
    }
    g = {"type": "function", "function": {"name": "g", "description": "d"}}
    all_tools = parse(tools=tools).offered_tools()
    assert all_tools.offered == (f, g)
    assert (all_tools.choice, all_tools.is_parallel) == ("auto", True)
    named = parse(tools=tools, tool_choice={"type": "function", "name": "g"}).offered_tools()
    assert (named.offered, named.choice, named.name) == ((f, g), "named", "g")
    allowed = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "g"}],
    }
    narrowed = parse(tools=tools, tool_choice=allowed, parallel_tool_calls=False).offered_tools()
    assert (narrowed.offered, narrowed.choice, narrowed.is_parallel) == ((g,), "required", False)
