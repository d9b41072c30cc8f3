"""What the Ollama dialect's bodies come down to, and what they are refused for."""

from typing import Any

import pytest
from pydantic import ValidationError

from tbcluster.server.ask import Constraint, Options
from tbcluster.server.ollama.schemas import ChatRequest, GenerateRequest, ShowRequest

HELLO = [{"role": "user", "content": "hello"}]
CALL = {"function": {"name": "find", "arguments": {"a": "é"}}}


def body(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": HELLO, **fields})


def options(**fields: Any) -> Options:
    return body(options=fields).neutral_options()


def messages(*turns: dict[str, Any]) -> list[dict[str, Any]]:
    return list(body(messages=list(turns)).chat().messages)


def refused(kind: Any, **fields: Any) -> tuple[str, str]:
    """The field that is blamed, and why."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"model": "m", **fields})
    first = caught.value.errors()[0]
    param = (
        first["ctx"]["param"] if first["type"] == "refused" else ".".join(map(str, first["loc"]))
    )
    return param, first["msg"]


def test_options_by_their_names_here() -> None:
    asked = options(
        temperature=0,
        top_k=3,
        top_p=0.5,
        min_p=0.1,
        seed=4,
        stop=["x"],
        num_predict=9,
        repeat_penalty=1.5,
        presence_penalty=0.5,
        frequency_penalty=1,
    )
    assert (asked.temperature, asked.top_k, asked.top_p, asked.min_p) == (0, 3, 0.5, 0.1)
    assert (asked.seed, asked.stop, asked.max_tokens) == (4, ("x",), 9)
    assert (asked.repetition_penalty, asked.repetition_context) == (1.5, 64)
    assert (asked.presence_penalty, asked.frequency_penalty) == (0.5, 1)


def test_numbers_with_a_meaning_of_their_own() -> None:
    for unlimited in (-2, -1, 0):
        assert options(num_predict=unlimited).max_tokens is None
    assert options(seed=-1).seed is None
    assert options(repeat_penalty=2, repeat_last_n=-1).repetition_context is None
    assert options(repeat_penalty=2, repeat_last_n=7).repetition_context == 7
    without = options(repeat_penalty=2, presence_penalty=1, repeat_last_n=0)
    assert (without.repetition_penalty, without.presence_penalty) == (1.0, 0.0)


def test_nothing_asked_is_nothing_changed() -> None:
    asked = body().neutral_options()
    assert asked == Options(repetition_context=64)
    assert body().streams
    assert not body(stream=False).streams


def test_settings_of_the_machine_are_taken() -> None:
    options(num_gpu=99, num_thread=4, num_batch=512, use_mmap=True, mirostat=0, tfs_z=1.0)
    body(keep_alive="5m", options={"num_ctx": 100})


@pytest.mark.parametrize(
    ("think", "effort"),
    [(None, None), (True, "medium"), (False, "none"), ("low", "low"), ("high", "high")],
)
def test_how_much_to_think(think: Any, effort: str | None) -> None:
    chat = body(think=think).chat()
    assert (chat.effort, chat.effort_param) == (effort, "think")


def test_the_form_of_an_answer() -> None:
    def constraint(form: Any) -> Constraint | None:
        return body(format=form).neutral_options().constraint

    assert constraint("") is constraint(None) is None
    assert constraint("json") == Constraint("json_object", None, "format")
    assert constraint({"type": "array"}) == Constraint("json_schema", {"type": "array"}, "format")
    assert constraint({}) == Constraint("json_schema", {}, "format")


def test_tool_calls_and_their_results() -> None:
    called = {"role": "assistant", "thinking": "hm", "tool_calls": [CALL, CALL]}
    answered = {"role": "tool", "content": "found", "tool_name": "find"}
    turns = messages(*HELLO, called, answered, answered)
    function = {"name": "find", "arguments": '{"a": "é"}'}
    assert turns[1] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "call_1_0", "type": "function", "function": function},
            {"id": "call_1_1", "type": "function", "function": function},
        ],
    }
    assert [turn["tool_call_id"] for turn in turns[2:]] == ["call_1_0", "call_1_1"]
    assert {turn["name"] for turn in turns[2:]} == {"find"}


def test_results_may_name_their_call() -> None:
    def call(call_id: str, name: str) -> dict[str, Any]:
        return {"id": call_id, "function": {"name": name, "arguments": {}}}

    called = {"role": "assistant", "tool_calls": [call("a", "f"), call("b", "g")]}
    by_id = messages(*HELLO, called, {"role": "tool", "content": "x", "tool_call_id": "b"})
    by_name = messages(*HELLO, called, {"role": "tool", "content": "x", "tool_name": "g"})
    in_order = messages(*HELLO, called, {"role": "tool", "content": "x"})
    stray = messages(*HELLO, {"role": "tool", "content": "x", "tool_name": "h"})
    assert (by_id[-1]["tool_call_id"], by_id[-1]["name"]) == ("b", "g")
    assert (by_name[-1]["tool_call_id"], by_name[-1]["name"]) == ("b", "g")
    assert (in_order[-1]["tool_call_id"], in_order[-1]["name"]) == ("a", "f")
    assert stray[-1]["name"] == "h"


def test_an_answer_that_was_begun() -> None:
    assert body(messages=[*HELLO, {"role": "assistant", "content": "It is"}]).chat().continues_last
    called = {"role": "assistant", "content": "a", "tool_calls": [CALL]}
    for turns in (HELLO, [*HELLO, {"role": "assistant", "content": " "}], [*HELLO, called]):
        assert not body(messages=turns).chat().continues_last


def test_a_prompt_is_a_conversation_of_one_turn() -> None:
    asked = {"model": "m", "prompt": "p", "system": "s"}
    assert GenerateRequest.model_validate(asked).chat().messages == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "p"},
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"options": {"mirostat": 2}}, "mirostat"),
        ({"options": {"tfs_z": 0.5}}, "tfs_z"),
        ({"options": {"typical_p": 0.5}}, "typical_p"),
        ({"options": {"penalize_newline": False}}, "penalize_newline"),
        ({"options": {"temprature": 0.5}}, "temprature"),
        ({"options": {"temperature": "0"}}, "options.temperature"),
        ({"options": {"top_p": 0}}, "options.top_p"),
        ({"options": {"stop": [""]}}, "stop"),
        ({"template": "t"}, "template"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"messages": [{"role": "user", "content": "a", "images": ["eA=="]}]}, "images"),
        ({"messages": [{"role": "user", "tool_calls": [CALL]}]}, "messages"),
    ],
)
def test_fields_of_chats_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(ChatRequest, **fields)[0] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "s"}, "suffix"),
        ({"template": "t"}, "template"),
        ({"context": [1]}, "context"),
        ({"images": ["eA=="]}, "images"),
        ({"raw": True, "system": "s"}, "system"),
        ({"raw": True, "think": True}, "think"),
        ({"tools": []}, "tools"),
    ],
)
def test_fields_of_texts_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(GenerateRequest, prompt="p", **fields)[0] == param


def test_a_model_to_show_has_a_name() -> None:
    assert ShowRequest.model_validate({"name": "m"}).wanted == "m"
    assert ShowRequest.model_validate({"model": "m", "verbose": True}).wanted == "m"
    assert refused(ShowRequest, model=None)[0] == "model"
