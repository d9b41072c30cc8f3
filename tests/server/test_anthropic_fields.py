"""What the Anthropic dialect's bodies come down to, and what they are refused for."""

import time
from typing import Any

import pytest
from pydantic import ValidationError

from tbcluster.server.anthropic.schemas import CountTokensRequest, MessagesRequest
from tbcluster.server.ask import Constraint

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "find", "description": "finds", "input_schema": {"type": "object"}}
CALL = {"type": "tool_use", "id": "t1", "name": "find", "input": {"a": "é"}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "found"}


def text(words: str, **others: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **others}


def body(**fields: Any) -> MessagesRequest:
    return MessagesRequest.model_validate(
        {"model": "m", "max_tokens": 100, "messages": HELLO, **fields}
    )


def messages(*turns: tuple[str, Any], **fields: Any) -> list[dict[str, Any]]:
    asked = [{"role": role, "content": content} for role, content in turns]
    return list(body(messages=asked, **fields).chat(can_reason=True).messages)


def refused(**fields: Any) -> tuple[str, str]:
    """The field that is blamed, and why."""
    with pytest.raises(ValidationError) as caught:
        body(**fields)
    first = caught.value.errors()[0]
    param = first["ctx"]["param"] if first["type"] == "refused" else str(first["loc"][0])
    return param, first["msg"]


def test_text_may_come_in_blocks() -> None:
    cached = text("a", cache_control={"type": "ephemeral", "ttl": "1h"})
    expected = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    assert messages(("user", "a"), system="s") == expected
    assert messages(("user", [cached]), system=[text("s")]) == expected
    both = messages(("user", [text("a"), text("b")]), system=[text("s"), text("t")])
    assert [message["content"] for message in both] == ["s\n\nt", "a\n\nb"]


def test_turns_of_the_same_role_become_one() -> None:
    turns = messages(("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"))
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("user", "a\n\nb"),
        ("assistant", "c\n\nd"),
    ]
    system = messages(("system", "t"), ("user", "a"), system="s")
    assert [turn["content"] for turn in system] == ["s\n\nt", "a"]


def test_thousands_of_turns_are_joined_in_no_time() -> None:
    part, number = "x" * 700, 40_000
    began_at = time.process_time()
    (whole,) = messages(*[("user", part)] * number)
    assert whole == {"role": "user", "content": "\n\n".join([part] * number)}
    assert time.process_time() - began_at < 10


def test_tool_calls_and_their_results() -> None:
    answer = [{"type": "thinking", "thinking": "hm", "signature": "s"}, text("I look"), CALL]
    results = [RESULT, {**RESULT, "tool_use_id": "t2", "is_error": True}, text("go on")]
    assert messages(("user", "a"), ("assistant", answer), ("user", results)) == [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": "I look",
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "id": "t1",
                    "type": "function",
                    "function": {"name": "find", "arguments": '{"a": "é"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "found"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: found"},
        {"role": "user", "content": "go on"},
    ]


def test_calls_of_answers_that_become_one() -> None:
    second = {**CALL, "id": "t2"}
    turns = messages(("user", "a"), ("assistant", [CALL]), ("assistant", [second]), ("user", "b"))
    assert [call["id"] for call in turns[1]["tool_calls"]] == ["t1", "t2"]


def test_a_result_may_be_empty_or_in_blocks() -> None:
    bare = {"type": "tool_result", "tool_use_id": "t1"}
    for result, content in ((bare, ""), ({**bare, "content": [text("x")]}, "x")):
        turns = messages(("user", "a"), ("assistant", [CALL]), ("user", [result]))
        assert turns[-1]["content"] == content


def test_encrypted_thoughts_are_left_out() -> None:
    redacted = {"type": "redacted_thinking", "data": "x"}
    turns = messages(("user", "a"), ("assistant", [redacted, text("b")]), ("user", "c"))
    assert turns[1] == {"role": "assistant", "content": "b"}


def test_an_answer_that_was_begun() -> None:
    def chat(content: Any) -> Any:
        turns = [*HELLO, {"role": "assistant", "content": content}]
        return body(messages=turns).chat(can_reason=True)

    begun = chat("It is")
    assert begun.continues_last
    assert begun.messages[-1] == {"role": "assistant", "content": "It is"}
    for nothing in ("", " \n", [], [text("")]):
        assert not chat(nothing).continues_last
        assert chat(nothing).messages == HELLO


def test_a_tool_may_be_strict() -> None:
    offered = body(tools=[{**TOOL, "strict": True}]).chat(can_reason=True).tools.offered
    assert offered[0]["function"]["strict"] is True


def test_tools_and_choices() -> None:
    def tools(**choice: Any) -> tuple[str, str | None, bool]:
        chosen = body(tools=[TOOL], tool_choice=choice).chat(can_reason=True).tools
        return chosen.choice, chosen.name, chosen.is_parallel

    offered = body(tools=[{**TOOL, "type": "custom"}]).chat(can_reason=True).tools.offered
    function = {"name": "find", "description": "finds", "parameters": {"type": "object"}}
    assert offered == ({"type": "function", "function": function},)
    assert tools(type="auto") == ("auto", None, True)
    assert tools(type="any", disable_parallel_tool_use=True) == ("required", None, False)
    assert tools(type="tool", name="find") == ("named", "find", True)
    assert tools(type="none") == ("none", None, True)


@pytest.mark.parametrize(
    ("fields", "can_reason", "effort", "param"),
    [
        ({}, True, None, "output_config.effort"),
        ({"thinking": {"type": "disabled"}}, True, "none", "thinking"),
        ({"thinking": {"type": "enabled", "budget_tokens": 50}}, False, "high", "thinking"),
        ({"thinking": {"type": "adaptive"}}, True, "high", "thinking"),
        ({"thinking": {"type": "adaptive"}}, False, None, "thinking"),
        ({"output_config": {"effort": "low"}}, True, "low", "output_config.effort"),
        (
            {"output_config": {"effort": "max"}, "thinking": {"type": "adaptive"}},
            True,
            "max",
            "thinking",
        ),
    ],
)
def test_how_much_to_think(
    fields: dict[str, Any], can_reason: bool, effort: str | None, param: str
) -> None:
    chat = body(**fields).chat(can_reason=can_reason)
    assert (chat.effort, chat.effort_param) == (effort, param)


def test_options() -> None:
    options = body(
        temperature=1,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        seed=4,
        stop_sequences=["x"],
        cache_prompt=False,
        thinking={"type": "enabled", "budget_tokens": 99},
    ).options()
    assert (options.max_tokens, options.temperature, options.top_p) == (100, 1, 0.5)
    assert (options.top_k, options.min_p, options.seed) == (3, 0.1, 4)
    assert (options.stop, options.cache_prompt) == (("x",), False)
    assert options.thinking_budget == 99


def test_the_form_of_an_answer() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    assert body(output_config={"format": form}).options().constraint == Constraint(
        "json_schema", {"type": "object"}, "output_config.format"
    )
    assert body(output_format=form).options().constraint == Constraint(
        "json_schema", {"type": "object"}, "output_format"
    )
    assert body().options().constraint is None


def test_bookkeeping_of_the_caller_is_taken() -> None:
    body(
        metadata={"user_id": "u"},
        service_tier="auto",
        cache_control={"type": "ephemeral"},
        container=None,
        mcp_servers=[],
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"context_management": {"edits": []}}, "context_management"),
        ({"speed": "fast"}, "speed"),
        ({"temprature": 1}, "temprature"),
        ({"temperature": 1.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"system": [{"type": "image"}]}, "system"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"tools": [{**TOOL, "input_schema": {"type": "string"}}]}, "tools"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"tool_choice": {"type": "any", "name": "find"}}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "thinking"),
        ({"thinking": {"type": "between_tools"}}, "thinking"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"messages": [{"role": "user", "content": [CALL]}]}, "messages"),
        ({"messages": [*HELLO, {"role": "assistant", "content": [RESULT]}]}, "messages"),
        ({"messages": [*HELLO, {"role": "assistant", "content": [CALL]}]}, "messages"),
    ],
)
def test_fields_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    blamed, why = refused(**fields)
    assert blamed == param
    assert why


@pytest.mark.parametrize("kind", ["image", "document", "search_result", "container_upload"])
def test_content_that_is_no_text_is_refused_by_name(kind: str) -> None:
    block = {"type": kind, "source": {}}
    param, why = refused(messages=[{"role": "user", "content": [text("a"), block]}])
    assert param == "messages"
    assert repr(kind) in why
    result = {**RESULT, "content": [block]}
    _, why = refused(messages=[{"role": "user", "content": [result]}])
    assert repr(kind) in why


def test_a_begun_answer_does_not_start_with_thinking() -> None:
    turns = [*HELLO, {"role": "assistant", "content": "It is"}]
    param, _ = refused(messages=turns, thinking={"type": "enabled", "budget_tokens": 9})
    assert param == "thinking"
    thought = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
    param, _ = refused(messages=[*HELLO, {"role": "assistant", "content": thought}])
    assert param == "messages"


def test_counting_takes_what_a_conversation_is_made_of() -> None:
    counted = {"model": "m", "messages": HELLO, "system": "s", "tools": [TOOL]}
    assert CountTokensRequest.model_validate(counted).chat(can_reason=False).messages[0] == {
        "role": "system",
        "content": "s",
    }
    with pytest.raises(ValidationError, match="there is no field 'max_tokens'"):
        CountTokensRequest.model_validate({**counted, "max_tokens": 5})
