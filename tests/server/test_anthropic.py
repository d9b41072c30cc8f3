"""The Anthropic dialect, as Anthropic's own client sees it."""

import json
from typing import Any

import anthropic
import httpx
import pytest

from tests.doubles.server import ServeProcess

MODEL = "tbcluster-demo"
TOOL_MODEL = "tool-model"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
ONE_CALL: Any = {"type": "any", "disable_parallel_tool_use": True}
NO_THINKING: Any = {"type": "disabled"}
# The client has no field for it any more.
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def client(server: ServeProcess) -> anthropic.Anthropic:
    return new_client(server)


@pytest.fixture(scope="module")
def tools(tool_server: ServeProcess) -> anthropic.Anthropic:
    """A client of a random model with tools and thinking."""
    return new_client(tool_server)


def new_client(server: ServeProcess) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)


def ask(client: anthropic.Anthropic, **fields: Any) -> Any:
    return client.messages.create(
        **{"model": MODEL, "max_tokens": 60, "messages": QUESTION, **fields}
    )


def test_a_right_answer(client: anthropic.Anthropic) -> None:
    answer = ask(client)
    assert [block.type for block in answer.content] == ["text"]
    assert "Paris" in answer.content[0].text
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.model == MODEL
    assert answer.id.startswith("msg_")


def test_a_streamed_answer_is_the_same(client: anthropic.Anthropic) -> None:
    whole = ask(client, extra_body={"cache_prompt": False})
    with client.messages.stream(
        model=MODEL, max_tokens=60, messages=QUESTION, extra_body={"cache_prompt": False}
    ) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == whole.content[0].text
    assert streamed.usage == whole.usage
    assert streamed.stop_reason == whole.stop_reason


def test_the_stream_on_the_wire(server: ServeProcess) -> None:
    asked = {"model": MODEL, "max_tokens": 5, "messages": QUESTION, "stream": True}
    # The version header may be missing.
    answer = httpx.post(f"{server.url}/v1/messages", json=asked, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event.split("\n") for event in answer.text.removesuffix("\n\n").split("\n\n")]
    assert [name for name, _ in events][:3] == [
        "event: message_start",
        "event: ping",
        "event: content_block_start",
    ]
    assert [name for name, _ in events][-3:] == [
        "event: content_block_stop",
        "event: message_delta",
        "event: message_stop",
    ]
    start = json.loads(events[0][1].removeprefix("data: "))
    assert start["message"]["content"] == []
    assert start["message"]["usage"]["input_tokens"] > 0


def test_why_an_answer_ended(client: anthropic.Anthropic) -> None:
    assert ask(client, max_tokens=3).stop_reason == "max_tokens"
    stopped = ask(client, stop_sequences=["never said", " Paris"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " Paris")
    assert "Paris" not in stopped.content[0].text


def test_the_answer_may_be_begun(client: anthropic.Anthropic) -> None:
    begun = [*QUESTION, {"role": "assistant", "content": "The capital of France is"}]
    answer = ask(client, messages=begun)
    assert "Paris" in answer.content[0].text
    assert "capital" not in answer.content[0].text


def test_a_system_prompt_is_read(client: anthropic.Anthropic) -> None:
    plain = ask(client, extra_body={"cache_prompt": False}).usage.input_tokens
    for system in ("Answer in French.", [{"type": "text", "text": "Answer in French."}]):
        answer = ask(client, system=system, extra_body={"cache_prompt": False})
        assert answer.usage.input_tokens > plain


def test_cached_tokens_are_counted_apart(client: anthropic.Anthropic) -> None:
    long = [{"role": "user", "content": "What is the capital of Italy? " * 5}]
    first = ask(client, messages=long, extra_body={"cache_prompt": False}).usage
    ask(client, messages=long)
    again = ask(client, messages=long).usage
    assert again.cache_read_input_tokens > 0
    assert again.input_tokens + again.cache_read_input_tokens == first.input_tokens


def test_tokens_are_counted_before_anything_is_asked(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens
    assert counted == ask(client, extra_body={"cache_prompt": False}).usage.input_tokens
    longer = client.messages.count_tokens(model=MODEL, messages=QUESTION, system="Be brief.")
    assert longer.input_tokens > counted


def test_models(client: anthropic.Anthropic, server: ServeProcess) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).display_name == MODEL
    # Other clients see OpenAI's list at the same place.
    assert httpx.get(f"{server.url}/v1/models").json()["object"] == "list"


def test_errors_have_the_dialects_shape(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="is not served here") as missing:
        ask(client, model="other")
    body: Any = missing.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    image = {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}
    with pytest.raises(anthropic.BadRequestError, match="'image'"):
        ask(client, messages=[{"role": "user", "content": [image]}])
    with pytest.raises(anthropic.BadRequestError, match="top_q"):
        ask(client, extra_body={"top_q": 1})
    with pytest.raises(anthropic.BadRequestError, match="tools"):
        ask(client, tools=[WEATHER])
    with pytest.raises(anthropic.BadRequestError, match="thinking"):
        ask(client, thinking={"type": "enabled", "budget_tokens": 50})


def test_a_model_that_cannot_think_may_adapt_to_that(client: anthropic.Anthropic) -> None:
    assert ask(client, thinking={"type": "adaptive"}).content[0].type == "text"


def test_an_answer_in_a_given_form(client: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = ask(client, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(answer.content[0].text)["city"] in ("Paris", "Rome")


def test_a_forced_call_and_its_result(tools: anthropic.Anthropic) -> None:
    forced = {"model": TOOL_MODEL, "tools": [WEATHER], "thinking": NO_THINKING}
    answer = ask(tools, tool_choice=ONE_CALL, extra_body=GREEDY, **forced)
    (call,) = answer.content
    assert (call.type, call.name, answer.stop_reason) == ("tool_use", "weather", "tool_use")
    assert call.input["city"] in ("Paris", "Rome")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "It rains."}
    turns = [
        *QUESTION,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    counts = [
        tools.messages.count_tokens(model=TOOL_MODEL, messages=asked, tools=[WEATHER]).input_tokens
        for asked in (QUESTION, turns)
    ]
    assert counts[1] > counts[0]
    assert ask(tools, messages=turns, max_tokens=2, **forced).usage.output_tokens == 2


def test_a_streamed_call(tools: anthropic.Anthropic) -> None:
    with tools.messages.stream(
        model=TOOL_MODEL,
        max_tokens=60,
        messages=QUESTION,
        tools=[WEATHER],
        tool_choice=ONE_CALL,
        thinking=NO_THINKING,
        extra_body=GREEDY,
    ) as stream:
        deltas = [event for event in stream if event.type == "input_json"]
        message = stream.get_final_message()
    assert len(deltas) > 1
    call: Any = message.content[0]
    assert call.input == json.loads("".join(delta.partial_json for delta in deltas))
    assert message.stop_reason == "tool_use"


def test_thinking_is_a_block_of_its_own(tools: anthropic.Anthropic) -> None:
    # A random model does not begin to think by itself: it is begun for it.
    begun = [*QUESTION, {"role": "assistant", "content": "<think>\nhm"}]
    asked = {"model": TOOL_MODEL, "messages": begun, "max_tokens": 20, "extra_body": GREEDY}
    answer = ask(tools, **asked)
    assert answer.content[0].type == "thinking"
    assert answer.content[0].thinking
    assert answer.usage.output_tokens_details.thinking_tokens > 10
    hidden = ask(tools, **asked, thinking={"type": "adaptive", "display": "omitted"})
    assert [block.type for block in hidden.content] == [block.type for block in answer.content]
    assert hidden.content[0].thinking == ""
    assert hidden.content[0].signature
