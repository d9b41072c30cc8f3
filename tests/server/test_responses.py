"""The Responses API, as OpenAI's own client sees it: a server process on real models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall
from pydantic import BaseModel

from tbcluster.server.keys import KeyFile
from tests.doubles.server import ServeProcess

MODEL = "tbcluster-demo"
QUESTION = "What is the capital of France?"
UNKNOWN = "resp_0123456789abcdef"
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2]}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "strict": True,
}
TIME: dict[str, Any] = {
    "type": "function",
    "name": "time",
    "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A file of keys, and two keys in it."""
    file = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    return file.path, [file.add("anna"), file.add("bert")]


@pytest.fixture(scope="module")
def tool_server(tool_model: Path, keys: tuple[Path, list[str]]) -> Iterator[ServeProcess]:
    """A model that thinks and calls tools, behind keys."""
    with ServeProcess(str(tool_model), "--keys", str(keys[0]), "--require-keys") as running:
        yield running


@pytest.fixture(scope="module")
def tools(tool_server: ServeProcess, keys: tuple[Path, list[str]]) -> openai.OpenAI:
    url = f"{tool_server.url}/v1"
    return openai.OpenAI(base_url=url, api_key=keys[1][0], max_retries=0)


def ask(client: openai.OpenAI, given: Any = QUESTION, **fields: Any) -> Response:
    response = client.responses.create(
        model=client.models.list().data[0].id, input=given, temperature=0, **fields
    )
    assert isinstance(response, Response)
    return strict(response)


def strict(response: Response) -> Response:
    """The same, checked: the client takes anything."""
    return Response.model_validate(response.model_dump(by_alias=True, warnings=False))


def stream(client: openai.OpenAI, given: Any = QUESTION, **fields: Any) -> list[Any]:
    model = client.models.list().data[0].id
    return list(
        client.responses.create(model=model, input=given, temperature=0, stream=True, **fields)
    )


def words(item: Any) -> str:
    """The text of a listed message."""
    (part,) = item.content
    return str(part.text)


def num_input(response: Response) -> int:
    assert response.usage is not None
    return response.usage.input_tokens


def without_ids(response: Response) -> dict[str, Any]:
    """What does not differ from one run to the next."""
    body = response.model_dump(mode="json", warnings=False)
    for name in ("id", "created_at", "completed_at"):
        del body[name]
    for item in body["output"]:
        del item["id"]
        item.pop("call_id", None)
    del body["usage"]["input_tokens_details"]
    return body


def test_a_right_answer(client: openai.OpenAI) -> None:
    response = ask(client, metadata={"k": "v"}, user="someone", store=False)
    assert "Paris" in response.output_text
    assert response.status == "completed"
    assert response.completed_at is not None
    assert response.completed_at >= response.created_at
    assert response.metadata == {"k": "v"}
    assert response.user == "someone"
    assert response.temperature == 0
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + (
        response.usage.output_tokens
    )


def test_it_is_the_answer_of_a_chat(client: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": QUESTION},
    ]
    chat = client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
    response = ask(client, instructions="Be brief.")
    assert response.output_text == chat.choices[0].message.content
    assert response.usage is not None
    assert chat.usage is not None
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    as_items = ask(client, messages)
    assert as_items.output_text == response.output_text
    assert as_items.usage is not None
    assert as_items.usage.input_tokens == response.usage.input_tokens


def test_a_streamed_answer_is_the_same(client: openai.OpenAI) -> None:
    whole = ask(client)
    events = stream(client)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert events[0].response.status == "in_progress"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 3
    assert "".join(deltas) == whole.output_text
    assert events[-1].type == "response.completed"
    assert without_ids(events[-1].response) == without_ids(whole)


def test_the_clients_own_stream_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=QUESTION, temperature=0) as running:
        text = "".join(e.delta for e in running if e.type == "response.output_text.delta")
        assert running.get_final_response().output_text == text != ""


def test_an_answer_that_is_cut_off(client: openai.OpenAI) -> None:
    response = ask(client, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert response.usage is not None
    assert response.usage.output_tokens == 3
    assert stream(client, max_output_tokens=3)[-1].type == "response.incomplete"


def test_logprobs(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    response = ask(client, **fields)
    part = response.output[0].content[0]  # type: ignore[union-attr,index]
    assert "".join(entry.token for entry in part.logprobs) == part.text  # type: ignore[union-attr]
    assert {len(entry.top_logprobs) for entry in part.logprobs} == {2}  # type: ignore[union-attr]
    events = stream(client, **fields)
    said = [e for e in events if e.type == "response.output_text.delta"]
    streamed = [entry.logprob for event in said for entry in event.logprobs]
    assert streamed == [entry.logprob for entry in part.logprobs]  # type: ignore[union-attr]


class Place(BaseModel):
    """What an answer is to hold."""

    city: Literal["Paris", "Rome"]
    size: Literal[1, 2, 3]


def test_a_schema_is_kept(client: openai.OpenAI) -> None:
    response = client.responses.parse(model=MODEL, input=QUESTION, text_format=Place)
    assert isinstance(response.output_parsed, Place)
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "json_schema"
    assert ask(client, extra_body={"regex": "[ab]{4}"}).output_text.strip("ab") == ""


def test_a_conversation_goes_on(client: openai.OpenAI) -> None:
    first = ask(client, instructions="Be brief.")
    second = ask(client, "And of Italy?", previous_response_id=first.id)
    by_hand = ask(
        client,
        [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "And of Italy?"},
        ],
    )
    # Instructions are not carried over.
    assert second.output_text == by_hand.output_text
    assert second.usage is not None
    assert by_hand.usage is not None
    assert second.usage.input_tokens == by_hand.usage.input_tokens
    assert second.previous_response_id == first.id
    events = stream(client, "And now?", previous_response_id=second.id)
    third = events[-1].response
    listed = client.responses.input_items.list(third.id, order="asc", limit=2)
    said = [words(item) for item in listed]
    assert said == [QUESTION, first.output_text, "And of Italy?", second.output_text, "And now?"]
    newest = client.responses.input_items.list(third.id)
    assert [words(item) for item in newest] == said[::-1]


def test_what_is_kept_can_be_read_and_deleted(client: openai.OpenAI) -> None:
    made = ask(client, metadata={"k": "v"})
    assert strict(client.responses.retrieve(made.id)) == made
    assert client.responses.delete(made.id) is None  # type: ignore[func-returns-value]
    with pytest.raises(openai.NotFoundError, match="response_id"):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError, match="response_id"):
        client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError, match="response_id"):
        list(client.responses.input_items.list(made.id))


def test_what_is_not_stored_cannot_be_continued(client: openai.OpenAI) -> None:
    for response in (ask(client, store=False), stream(client, store=False)[-1].response):
        assert response.to_dict()["store"] is False
        with pytest.raises(openai.NotFoundError) as caught:
            ask(client, previous_response_id=response.id)
        assert caught.value.param == "previous_response_id"
        assert caught.value.code == "previous_response_not_found"


def test_items_are_referred_to_by_their_ids(client: openai.OpenAI) -> None:
    first = ask(client)
    given: list[Any] = [
        {"role": "user", "content": QUESTION},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "And of Italy?"},
    ]
    second = ask(client, given)
    assert (
        second.output_text
        == ask(client, "And of Italy?", previous_response_id=first.id).output_text
    )
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, [{"type": "item_reference", "id": "msg_unknown"}])
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "gpt-5"}, 404, "model"),
        ({"previous_response_id": UNKNOWN}, 404, "previous_response_id"),
        ({"background": True}, 400, "background"),
        ({"input": [{"role": "user", "content": 5}]}, 400, "input.0.content"),
        ({"input": "word " * 5000}, 400, "input"),
        ({"tools": [{"type": "web_search"}]}, 400, "tools"),
        ({"tools": [WEATHER]}, 400, "tools"),  # the bundled model knows none
        ({"reasoning": {"effort": "high"}}, 400, "reasoning.effort"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": 5}}}}, 400, "text.format"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
            400,
            "input",
        ),
        ({"nothing": 1}, 400, "nothing"),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_refusals_name_the_field(
    http: httpx.Client, fields: dict[str, Any], status: int, param: str, streams: bool
) -> None:
    body = {"model": MODEL, "input": QUESTION, "stream": streams, **fields}
    answer = http.post("/v1/responses", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("path", "param"),
    [
        (f"/v1/responses/{UNKNOWN}?stream=true", "stream"),
        (f"/v1/responses/{UNKNOWN}?starting_after=3", "starting_after"),
        (f"/v1/responses/{UNKNOWN}/input_items?limit=0", "limit"),
        (f"/v1/responses/{UNKNOWN}/input_items?order=up", "order"),
    ],
)
def test_queries_are_refused_by_name(http: httpx.Client, path: str, param: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_pages_begin_after_an_item(client: openai.OpenAI, http: httpx.Client) -> None:
    made = ask(client, [{"role": "user", "content": text} for text in "abc"])
    path = f"/v1/responses/{made.id}/input_items"
    first = http.get(path, params={"limit": 1, "order": "asc"}).json()
    assert first["has_more"] is True
    assert first["first_id"] == first["last_id"] == first["data"][0]["id"]
    rest = http.get(path, params={"after": first["last_id"], "order": "asc"}).json()
    assert [item["content"][0]["text"] for item in rest["data"]] == ["b", "c"]
    assert rest["has_more"] is False
    assert http.get(path, params={"after": "msg_unknown"}).json()["error"]["param"] == "after"


def test_a_forced_call_and_its_output(tools: openai.OpenAI) -> None:
    fields: dict[str, Any] = {
        "tools": [WEATHER, TIME],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
    }
    first = ask(tools, "How is the weather?", **fields)
    (call,) = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    assert call.name == "weather"
    assert call.status == "completed"
    jsonschema.validate(json.loads(call.arguments), WEATHER["parameters"])
    assert first.tools[0].name == "weather"  # type: ignore[union-attr]

    events = stream(tools, "How is the weather?", **fields)
    assert without_ids(events[-1].response) == without_ids(first)
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == call.arguments

    output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    again: dict[str, Any] = {"tools": [WEATHER, TIME], "max_output_tokens": 4}
    second = ask(tools, [output], previous_response_id=first.id, **again)
    question = {"role": "user", "content": "How is the weather?"}
    said = [item.to_dict() for item in first.output]
    by_hand = ask(tools, [question, *said, output], **again)
    assert num_input(second) == num_input(by_hand) > num_input(first)
    assert second.output_text == by_hand.output_text


def test_only_allowed_tools_are_called(tools: openai.OpenAI) -> None:
    choice: Any = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "time"}],
    }
    response = ask(
        tools, "What now?", tools=[WEATHER, TIME], tool_choice=choice, parallel_tool_calls=False
    )
    calls = [item for item in response.output if isinstance(item, ResponseFunctionToolCall)]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("time", {})]


def test_reasoning_is_an_item_of_its_own(
    tool_server: ServeProcess, tools: openai.OpenAI, keys: tuple[Path, list[str]]
) -> None:
    def tokens_of(text: str) -> list[int]:
        headers = {"Authorization": f"Bearer {keys[1][0]}"}
        body = {"prompt": text, "add_special_tokens": False}
        answer = httpx.post(f"{tool_server.url}/tokenize", json=body, headers=headers)
        tokens: list[int] = answer.json()["tokens"]
        return tokens

    # A random model does not think by itself. Biases say what comes after what, since a token that
    # was there falls back; the regex is for what follows the reasoning.
    (start,), (end,), thought = tokens_of("<think>"), tokens_of("</think>"), tokens_of(" Paris")
    assert len(set(thought)) == len(thought)
    falling = [start, *thought, end]
    bias = {str(token): 100 - 10 * place for place, token in enumerate(falling)}
    given: dict[str, Any] = {
        "extra_body": {"regex": "(yes|no)", "logit_bias": bias, "repetition_penalty": 100}
    }
    response = ask(tools, "Think.", **given)
    assert [item.type for item in response.output] == ["reasoning", "message"]
    (part,) = response.output[0].content  # type: ignore[union-attr,misc]
    assert part.text.strip() == "Paris"  # type: ignore[union-attr]
    assert response.output_text in {"yes", "no"}
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens >= len(thought)
    events = stream(tools, "Think.", **given)
    assert without_ids(events[-1].response) == without_ids(response)
    assert "response.reasoning_text.delta" in {event.type for event in events}

    # What was thought goes back to the model with the turn it belongs to.
    followed = ask(tools, "Go on.", previous_response_id=response.id, max_output_tokens=2)
    forgotten = ask(
        tools,
        [
            {"role": "user", "content": "Think."},
            {"role": "assistant", "content": response.output_text},
            {"role": "user", "content": "Go on."},
        ],
        max_output_tokens=2,
    )
    assert num_input(followed) > num_input(forgotten)


def test_nobody_reads_what_another_key_has(
    tool_server: ServeProcess, tools: openai.OpenAI, keys: tuple[Path, list[str]]
) -> None:
    made = ask(tools, "Hello.", max_output_tokens=2)
    other = openai.OpenAI(base_url=f"{tool_server.url}/v1", api_key=keys[1][1], max_retries=0)
    with pytest.raises(openai.NotFoundError):
        other.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        other.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        ask(other, previous_response_id=made.id)
    with pytest.raises(openai.NotFoundError):
        ask(other, [{"type": "item_reference", "id": made.output[0].id}])
    assert tools.responses.retrieve(made.id).id == made.id
