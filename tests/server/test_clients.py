"""OpenAI's own client and LiteLLM, as programs use them: tools, reasoning, objects, embeddings."""

import asyncio
import importlib
import json
from itertools import islice
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

from tests.doubles.faults.signals import kill
from tests.doubles.server import ServeProcess

MODEL = "tool-model"
QUESTION: list[Any] = [{"role": "user", "content": "How is the weather?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of the next days.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Paris", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["UTC", "CET"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}
ALLOWED: dict[str, dict[str, list[Any]]] = {
    "get_weather": {"city": ["Paris", "Rome"], "days": list(range(1, 10))},
    "get_time": {"zone": ["UTC", "CET"]},
}
# The model is random: what ends its answers are constraints, and it must not begin to reason.
FORCED: dict[str, Any] = {
    "tools": [WEATHER, TIME],
    "tool_choice": "required",
    "reasoning_effort": "none",
    "temperature": 1,
    "max_tokens": 600,
}
TEXT = {"regex": "It is (warm|cold)"}
TEXTS = ("It is warm", "It is cold")


class Trip(BaseModel):
    """What an answer is parsed into."""

    city: Literal["Paris", "Rome"]
    days: int = Field(ge=1, le=9)


class GetWeather(BaseModel):
    """A tool as a class."""

    city: Literal["Paris", "Rome"]


@pytest.fixture(scope="module")
def client(tool_server: ServeProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{tool_server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def litellm() -> Any:
    """Imported by who uses it: that takes seconds. It reads when it is imported whether it may ask
    the internet for its price list."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        return importlib.import_module("litellm")


@pytest.fixture(scope="module")
def lite(tool_server: ServeProcess) -> dict[str, Any]:
    """What LiteLLM's functions are told of the server."""
    return {"model": f"openai/{MODEL}", "api_base": f"{tool_server.url}/v1", "api_key": "none"}


def chat(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=QUESTION, **fields)


def said(calls: Any) -> list[tuple[str, str]]:
    """Name and arguments of each call."""
    return [(call.function.name, call.function.arguments) for call in calls]


def check_calls(calls: list[tuple[str, str]]) -> None:
    for name, arguments in calls:
        parsed = json.loads(arguments)
        assert parsed.keys() == ALLOWED[name].keys()
        assert all(value in ALLOWED[name][key] for key, value in parsed.items())


def joined_calls(chunks: list[Any]) -> list[tuple[str, str]]:
    """The calls of a stream; names come once, arguments in pieces."""
    calls: list[tuple[str, str]] = []
    for chunk in chunks:
        for delta in chunk.choices[0].delta.tool_calls or ():
            if delta.id:
                assert delta.index == len(calls)
                calls.append((delta.function.name, ""))
            name, arguments = calls[delta.index]
            calls[delta.index] = (name, arguments + (delta.function.arguments or ""))
    return calls


@pytest.mark.parametrize("seed", range(3))
def test_forced_calls_whole_and_streamed(client: openai.OpenAI, seed: int) -> None:
    whole = chat(client, seed=seed, **FORCED).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert not whole.message.content
    calls = said(whole.message.tool_calls)
    check_calls(calls)
    assert len({call.id for call in whole.message.tool_calls}) == len(calls)
    chunks = list(chat(client, seed=seed, stream=True, **FORCED))
    assert joined_calls(chunks) == calls
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert sum(bool(chunk.choices[0].delta.tool_calls) for chunk in chunks) > 2 * len(calls)


def test_a_call_goes_on_when_a_stage_is_killed(
    client: openai.OpenAI, tool_server: ServeProcess
) -> None:
    """Its grammar, too: the last stage knows where in it the answer is."""
    days = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 80, "maxItems": 80}
    parameters = {"type": "object", "properties": {"days": days}, "required": ["days"]}
    tool = {"type": "function", "function": {"name": "choose", "parameters": parameters}}
    fields = {**FORCED, "tools": [tool], "seed": 5, "stream": True, "max_tokens": 2000}
    undisturbed = joined_calls(list(chat(client, **fields)))
    assert len(json.loads(undisturbed[0][1])["days"]) == 80
    disturbed = chat(client, **fields)
    begun = list(islice(disturbed, 5))
    assert kill(health(tool_server)["stages"][-1]["pid"])
    assert health(tool_server)["num_requests"] == 1
    assert joined_calls([*begun, *disturbed]) == undisturbed
    assert health(tool_server)["stages"][-1]["num_restarts"] == 1


def health(server: ServeProcess) -> dict[str, Any]:
    facts: dict[str, Any] = httpx.get(f"{server.url}/health").json()
    return facts


def test_a_named_tool_is_the_one_that_is_called(client: openai.OpenAI) -> None:
    for name in ALLOWED:
        choice = {"type": "function", "function": {"name": name}}
        calls = chat(client, **{**FORCED, "tool_choice": choice}).choices[0].message.tool_calls
        assert {call.function.name for call in calls} == {name}
        check_calls(said(calls))


def test_several_calls_unless_forbidden(client: openai.OpenAI) -> None:
    def num_calls(**fields: Any) -> list[int]:
        answers = (chat(client, seed=seed, **FORCED, **fields) for seed in range(6))
        return [len(answer.choices[0].message.tool_calls) for answer in answers]

    assert max(num_calls()) > 1
    assert num_calls(parallel_tool_calls=False) == [1] * 6


def test_results_of_tools_go_back_in(client: openai.OpenAI) -> None:
    first = chat(client, **FORCED).choices[0].message
    messages = [*QUESTION, first.model_dump(exclude_none=True)]
    messages += [
        {"role": "tool", "tool_call_id": call.id, "content": "It is 21 degrees."}
        for call in first.tool_calls
    ]
    fields = {key: value for key, value in FORCED.items() if key != "tool_choice"}
    second = client.chat.completions.create(
        model=MODEL, messages=messages, tool_choice="none", extra_body=TEXT, **fields
    )
    assert second.choices[0].message.content in TEXTS
    before = client.chat.completions.create(
        model=MODEL, messages=QUESTION, tool_choice="none", extra_body=TEXT, **fields
    )
    assert second.usage.prompt_tokens > before.usage.prompt_tokens + 20


def test_reasoning_is_apart_whole_and_streamed(
    tool_server: ServeProcess, client: openai.OpenAI
) -> None:
    def token(text: str) -> str:
        answer = client.post("/../tokenize", body={"prompt": text}, cast_to=dict[str, Any])
        [only] = answer["tokens"]
        return str(only)

    # With this seed the model opens its reasoning; it ends it once that is made likely.
    fields: dict[str, Any] = {"temperature": 1, "seed": 3, "max_tokens": 600}
    fields["logit_bias"] = {token("</think>"): 4}
    whole = chat(client, extra_body=TEXT, **fields)
    message = whole.choices[0].message
    assert whole.choices[0].finish_reason == "stop"
    assert message.content in TEXTS
    assert message.reasoning_content
    assert whole.usage.completion_tokens_details.reasoning_tokens > 3
    deltas = [
        chunk.choices[0].delta for chunk in chat(client, extra_body=TEXT, stream=True, **fields)
    ]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    reasoning = [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
    assert "".join(reasoning) == message.reasoning_content
    assert sum(map(bool, reasoning)) > 3


def test_what_was_turned_off_is_not_reasoned(client: openai.OpenAI) -> None:
    for seed in range(6):
        message = (
            chat(client, temperature=1, seed=seed, reasoning_effort="none", extra_body=TEXT)
            .choices[0]
            .message
        )
        assert message.content in TEXTS
        assert getattr(message, "reasoning_content", None) is None


def test_answers_become_objects(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"reasoning_effort": "none", "temperature": 1, "max_tokens": 200}
    for seed in range(3):
        answer = client.chat.completions.parse(
            model=MODEL, messages=QUESTION, response_format=Trip, seed=seed, **fields
        )
        assert isinstance(answer.choices[0].message.parsed, Trip)
    with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, response_format=Trip, seed=2, **fields
    ) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.parsed == (
            answer.choices[0].message.parsed
        )
    assert {"chunk", "content.delta", "content.done"} <= kinds


def test_calls_become_objects(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=QUESTION,
        tools=[openai.pydantic_function_tool(GetWeather)],
        tool_choice="required",
        parallel_tool_calls=False,
        reasoning_effort="none",
    )
    [call] = answer.choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, GetWeather)


def test_markers_in_what_has_to_match_are_text(client: openai.OpenAI) -> None:
    got = {
        chat(
            client,
            temperature=1,
            seed=seed,
            reasoning_effort="none",
            extra_body={"regex": "a<thin(k|kk)>b"},
        )
        .choices[0]
        .message.content
        for seed in range(6)
    }
    assert got == {"a<think>b", "a<thinkk>b"}
    forced = chat(client, reasoning_effort="none", extra_body={"regex": "a<think>b</think>"})
    assert forced.choices[0].message.content == "a<think>b</think>"


def test_the_asynchronous_client(tool_server: ServeProcess, client: openai.OpenAI) -> None:
    async def run() -> tuple[list[str], str, list[tuple[str, str]]]:
        async with openai.AsyncOpenAI(
            base_url=f"{tool_server.url}/v1", api_key="none", max_retries=0
        ) as there:
            create: Any = there.chat.completions.create
            fields = {"model": MODEL, "messages": QUESTION, "temperature": 0}
            text = {**fields, "reasoning_effort": "none", "extra_body": TEXT}
            answers = await asyncio.gather(*(create(**text) for _ in range(4)))
            streamed = [
                chunk.choices[0].delta.content or ""
                async for chunk in await create(stream=True, **text)
            ]
            calls = await create(**{**fields, **FORCED, "seed": 1})
            texts = [answer.choices[0].message.content for answer in answers]
            return texts, "".join(streamed), said(calls.choices[0].message.tool_calls)

    texts, streamed, calls = asyncio.run(run())
    assert set(texts) == {streamed}
    assert calls == said(chat(client, **{**FORCED, "seed": 1}).choices[0].message.tool_calls)


def test_embeddings(client: openai.OpenAI) -> None:
    pair = client.embeddings.create(model=MODEL, input=["hello", "good morning"])
    assert [one.index for one in pair.data] == [0, 1]
    floats = client.embeddings.create(model=MODEL, input="hello", encoding_format="float")
    # Without a word the client asks for base64.
    assert pair.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-6)
    assert sum(value**2 for value in floats.data[0].embedding) == pytest.approx(1, abs=1e-4)
    assert pair.data[0].embedding != pair.data[1].embedding
    assert pair.usage.prompt_tokens == pair.usage.total_tokens > floats.usage.prompt_tokens


def test_litellm_whole_and_streamed(litellm: Any, lite: dict[str, Any]) -> None:
    fields = {"messages": QUESTION, "temperature": 0, "reasoning_effort": "none"}
    fields |= {"extra_body": TEXT, "allowed_openai_params": ["reasoning_effort"]}
    whole = litellm.completion(**lite, **fields)
    assert whole.choices[0].message.content in TEXTS
    assert whole.usage.completion_tokens > 1
    chunks = list(litellm.completion(stream=True, **lite, **fields))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == (
        whole.choices[0].message.content
    )
    later = asyncio.run(litellm.acompletion(**lite, **fields))
    assert later.choices[0].message.content == whole.choices[0].message.content


def test_litellm_calls_tools(litellm: Any, lite: dict[str, Any]) -> None:
    fields = {**FORCED, "messages": QUESTION, "seed": 1}
    # Tools make it import a package for MCP servers, which is not there.
    fields |= {"allowed_openai_params": ["reasoning_effort"], "_skip_mcp_handler": True}
    whole = litellm.completion(**lite, **fields)
    calls = said(whole.choices[0].message.tool_calls)
    check_calls(calls)
    assert whole.choices[0].finish_reason == "tool_calls"
    chunks = list(litellm.completion(stream=True, **lite, **fields))
    rebuilt = litellm.stream_chunk_builder(chunks)
    assert said(rebuilt.choices[0].message.tool_calls) == calls


def test_litellm_says_what_was_wrong(litellm: Any, lite: dict[str, Any]) -> None:
    with pytest.raises(litellm.exceptions.BadRequestError, match="top_p"):
        litellm.completion(**lite, messages=QUESTION, top_p=0)
    with pytest.raises(litellm.exceptions.NotFoundError, match="not served here"):
        litellm.completion(**{**lite, "model": "openai/gpt-4"}, messages=QUESTION)


def test_litellm_embeds(litellm: Any, lite: dict[str, Any], client: openai.OpenAI) -> None:
    ours = client.embeddings.create(model=MODEL, input=["hello"]).data[0].embedding
    answer = litellm.embedding(**lite, input=["hello"])
    assert answer.data[0]["embedding"] == pytest.approx(ours, abs=1e-6)
