"""Items as messages of a chat."""

from typing import Any

import pytest

from tbcluster.errors import RequestError
from tbcluster.server.responses.items import chat_messages
from tbcluster.server.responses.schemas import ResponsesRequest

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
OTHER_CALL = {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "one"}
OTHER_OUTPUT = {"type": "function_call_output", "call_id": "c2", "output": "two"}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def thought(text: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": "rs", "summary": [], "content": content}


def call(name: str, call_id: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def heard(text: str, call_id: str, name: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "name": name, "content": text}


F = call("f", "c1", '{"a": 1}')
G = call("g", "c2", "{}")


def messages(given: Any, instructions: str | None = None) -> list[dict[str, Any]]:
    body = ResponsesRequest.model_validate({"model": "m", "input": given})
    return chat_messages(instructions, [item.kept() for item in body.input])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("hello", [user("hello")]),
        ([user("a"), answer("b"), user("c")], [user("a"), answer("b"), user("c")]),
        ([user("a"), answer("b"), answer("c")], [user("a"), answer("b"), answer("c")]),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": t} for t in "ab"]}],
            [user("ab")],
        ),
        (
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
            [answer("no")],
        ),
        ([{"role": "developer", "content": "be kind"}, user("a")], [system("be kind"), user("a")]),
        ([user("a"), {"role": "developer", "content": "b"}], [user("a"), system("b")]),
        (
            [user("a"), thought("hm"), answer("b")],
            [user("a"), {**answer("b"), "reasoning_content": "hm"}],
        ),
        (
            [user("a"), CALL, OUTPUT, answer("b")],
            [
                user("a"),
                {**answer(""), "tool_calls": [F]},
                heard("one", "c1", "f"),
                answer("b"),
            ],
        ),
        (
            [user("a"), thought("hm"), answer("ok"), CALL, OTHER_CALL, OUTPUT, OTHER_OUTPUT],
            [
                user("a"),
                {**answer("ok"), "reasoning_content": "hm", "tool_calls": [F, G]},
                heard("one", "c1", "f"),
                heard("two", "c2", "g"),
            ],
        ),
        # Between calls that wait for their outputs no other message has a place.
        (
            [CALL, answer("and"), OTHER_CALL, OUTPUT, OTHER_OUTPUT],
            [
                {**answer("and"), "tool_calls": [F, G]},
                heard("one", "c1", "f"),
                heard("two", "c2", "g"),
            ],
        ),
        (
            [CALL, OUTPUT, thought("hm"), OTHER_CALL, OTHER_OUTPUT],
            [
                {**answer(""), "tool_calls": [F]},
                heard("one", "c1", "f"),
                {**answer(""), "reasoning_content": "hm", "tool_calls": [G]},
                heard("two", "c2", "g"),
            ],
        ),
        (
            [CALL, {**OUTPUT, "output": [{"type": "input_text", "text": t} for t in "xy"]}],
            [{**answer(""), "tool_calls": [F]}, heard("xy", "c1", "f")],
        ),
        (
            [{"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "s"}]}],
            [{**answer(""), "reasoning_content": "s"}],
        ),
    ],
)
def test_items_become_messages(given: Any, expected: list[dict[str, Any]]) -> None:
    assert messages(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a", [system("i"), user("a")]),
        ([system("s"), user("a")], [system("i\n\ns"), user("a")]),
        ([user("a"), system("s")], [system("i"), user("a"), system("s")]),
    ],
)
def test_instructions_come_first(given: Any, expected: list[dict[str, Any]]) -> None:
    assert messages(given, "i") == expected


def test_an_output_without_its_call_is_refused() -> None:
    with pytest.raises(RequestError, match=r"'c2'.*no function_call") as caught:
        messages([CALL, OTHER_OUTPUT])
    assert caught.value.param == "input"


def test_items_are_kept_in_full() -> None:
    body = ResponsesRequest.model_validate(
        {"model": "m", "input": [user("a"), answer("b"), thought("c"), CALL, OUTPUT]}
    )
    kept = [item.kept() for item in body.input]  # type: ignore[union-attr]
    assert [item["id"].partition("_")[0] for item in kept if item["id"] != "rs"] == [
        "msg",
        "msg",
        "fc",
        "fco",
    ]
    assert len({item["id"] for item in kept}) == 5
    assert {item["status"] for item in kept} == {"completed"}
    assert kept[0]["content"] == [{"type": "input_text", "text": "a"}]
    assert kept[1]["content"] == [{"type": "output_text", "text": "b", "annotations": []}]
    again = ResponsesRequest.model_validate({"model": "m", "input": kept})
    assert [item.kept() for item in again.input] == kept  # type: ignore[union-attr]
