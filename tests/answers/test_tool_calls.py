"""Earlier turns in the shape that chat templates take."""

from typing import Any

import pytest

from tbcluster.answers.tool_calls import template_messages
from tbcluster.errors import RequestError


def call(arguments: Any) -> dict[str, Any]:
    function = {"name": "find", "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function}


def answer(arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call(arguments)]}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [('{"a": 1}', {"a": 1}), ("", {}), (None, {}), ("{}", {}), ({"a": 1}, {"a": 1})],
)
def test_arguments_become_objects(given: Any, wanted: dict[str, Any]) -> None:
    before = answer(given)
    turns = template_messages([before])
    assert turns == [{"role": "assistant", "content": "", "tool_calls": [call(wanted)]}]
    assert before == answer(given)


@pytest.mark.parametrize("arguments", ["{", "[1]", "3", "null", "[" * 100_000])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    with pytest.raises(RequestError, match="'find'") as caught:
        template_messages([answer(arguments)])
    assert caught.value.param == "messages"


def test_a_result_carries_its_tools_name() -> None:
    result = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "4"}]}
    unknown = {"role": "tool", "tool_call_id": "call_9", "content": "5"}
    named = {**result, "name": "own"}
    turns = template_messages([answer("{}"), result, unknown, named])[1:]
    assert [turn.get("name") for turn in turns] == ["find", None, "own"]
    assert turns[0]["content"] == "4"


def test_reasoning_and_empty_contents() -> None:
    turns = template_messages(
        [{"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": None}]
    )
    assert turns == [{"role": "assistant", "content": "", "reasoning_content": "hm"}]


def test_a_part_that_is_no_text_is_refused() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    with pytest.raises(RequestError, match="no text"):
        template_messages([{"role": "user", "content": [image]}])
