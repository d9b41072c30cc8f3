"""The Ollama dialect, as Ollama's own client sees it."""

import json
from typing import Any

import httpx
import ollama
import pytest

from tests.doubles.server import ServeProcess

MODEL = "tbcluster-demo"
TOOL_MODEL = "tool-model"
PROMPT = "What is the capital of France?"
QUESTION: Any = [{"role": "user", "content": PROMPT}]
CITY: Any = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return city


@pytest.fixture(scope="module")
def client(server: ServeProcess) -> ollama.Client:
    return ollama.Client(host=server.url)


@pytest.fixture(scope="module")
def tools(tool_server: ServeProcess) -> ollama.Client:
    """A client of a random model with tools and thinking."""
    return ollama.Client(host=tool_server.url)


def test_json_under_the_type_that_curl_gives_it(
    client: ollama.Client, server: ServeProcess
) -> None:
    body = json.dumps({"model": MODEL, "messages": QUESTION, "stream": False})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = httpx.post(f"{server.url}/api/chat", content=body, headers=form, timeout=60)
    assert "Paris" in answer.json()["message"]["content"]
    page = {**form, "Origin": "https://example.com"}
    assert httpx.post(f"{server.url}/api/chat", content=body, headers=page).status_code == 400


@pytest.mark.parametrize("name", [MODEL, f"{MODEL}:latest"])
def test_a_right_answer(client: ollama.Client, name: str) -> None:
    answer = client.chat(model=name, messages=QUESTION)
    assert "Paris" in (answer.message.content or "")
    assert (answer.model, answer.done, answer.done_reason) == (name, True, "stop")
    assert answer.eval_count
    assert answer.total_duration
    assert answer.eval_duration
    assert answer.total_duration > answer.eval_duration


def test_a_streamed_answer_is_the_same(client: ollama.Client) -> None:
    whole = client.chat(model=MODEL, messages=QUESTION)
    parts = list(client.chat(model=MODEL, messages=QUESTION, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == whole.eval_count


def test_a_prompt(client: ollama.Client) -> None:
    answer = client.generate(model=MODEL, prompt=PROMPT)
    assert answer.response == client.chat(model=MODEL, messages=QUESTION).message.content
    parts = list(client.generate(model=MODEL, prompt=PROMPT, stream=True))
    assert "".join(part.response or "" for part in parts) == answer.response


def test_a_raw_prompt_is_continued(client: ollama.Client) -> None:
    asked = f"<|user|>{PROMPT}<|end|><|assistant|>"
    raw = client.generate(model=MODEL, prompt=asked, raw=True)
    assert raw.response == client.generate(model=MODEL, prompt=PROMPT).response


def test_streaming_is_the_default_on_the_wire(server: ServeProcess) -> None:
    asked = {"model": MODEL, "prompt": PROMPT, "options": {"num_predict": 3}}
    answer = httpx.post(f"{server.url}/api/generate", json=asked, timeout=60)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert json.loads(answer.text.splitlines()[-1])["done_reason"] == "length"


def test_options_do_something(client: ollama.Client) -> None:
    def said(**options: Any) -> str:
        return client.generate(model=MODEL, prompt=PROMPT, options=options).response or ""

    whole = said(temperature=0)
    assert said(temperature=0, stop=[" Paris"]) == whole.split(" Paris")[0]
    hot = {"temperature": 2, "num_predict": 20}
    assert said(**hot, seed=1) == said(**hot, seed=1)
    assert said(**hot, seed=1) != said(**hot, seed=2)
    assert said(**hot, seed=1, top_k=1, num_ctx=64) == whole


def test_the_form_of_an_answer(client: ollama.Client) -> None:
    answer = client.chat(model=MODEL, messages=QUESTION, format=CITY)
    assert json.loads(answer.message.content or "")["city"] in ("Paris", "Rome")


def test_logprobs(client: ollama.Client) -> None:
    answer = client.chat(model=MODEL, messages=QUESTION, logprobs=True, top_logprobs=2)
    assert answer.logprobs is not None
    assert answer.eval_count == len(answer.logprobs)
    assert all(len(entry.top_logprobs or ()) == 2 for entry in answer.logprobs)
    assert "".join(entry.token for entry in answer.logprobs).startswith(
        answer.message.content or ""
    )


def test_asking_nothing_loads_the_model(client: ollama.Client) -> None:
    assert client.chat(model=MODEL, messages=[]).done_reason == "load"
    assert client.generate(model=MODEL).done_reason == "load"
    assert [part.done for part in client.generate(model=MODEL, stream=True)] == [True]


def test_what_is_known_of_the_model(client: ollama.Client, server: ServeProcess) -> None:
    (listed,) = client.list().models
    (running,) = client.ps().models
    assert listed.model == running.model == MODEL
    assert listed.digest == running.digest
    assert listed.size
    shown = client.show(f"{MODEL}:latest")
    assert shown.capabilities == ["completion"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == running.context_length
    assert "message" in (shown.template or "")
    version = httpx.get(f"{server.url}/api/version").json()["version"]
    assert version.count(".") == 2


def test_errors_have_the_dialects_shape(client: ollama.Client, server: ServeProcess) -> None:
    with pytest.raises(ollama.ResponseError, match="is not served here") as caught:
        client.chat(model="other", messages=QUESTION)
    assert caught.value.status_code == 404
    for options in ({"mirostat": 1}, {"num_ctx": 10**6}, {"temprature": 1}):
        with pytest.raises(ollama.ResponseError, match=next(iter(options))) as caught:
            client.chat(model=MODEL, messages=QUESTION, options=options, stream=True).__next__()
        assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="think"):
        client.chat(model=MODEL, messages=QUESTION, think=True)
    missing = httpx.post(f"{server.url}/api/pull", json={"model": "x"})
    assert missing.status_code == 404
    assert list(missing.json()) == ["error"]


def test_tools_and_thinking(tools: ollama.Client) -> None:
    assert tools.show(TOOL_MODEL).capabilities == ["completion", "tools", "thinking"]
    few = {"num_predict": 2, "temperature": 0}
    plain = tools.chat(model=TOOL_MODEL, messages=QUESTION, options=few)
    with_tools = tools.chat(model=TOOL_MODEL, messages=QUESTION, tools=[weather], options=few)
    assert (with_tools.prompt_eval_count or 0) > (plain.prompt_eval_count or 0)
    # A random model does not begin to think by itself: it is begun for it.
    begun = [*QUESTION, {"role": "assistant", "content": "<think>\nhm"}]
    thinking = tools.chat(
        model=TOOL_MODEL, messages=begun, options={"num_predict": 20, "temperature": 0}
    )
    assert thinking.message.thinking
    for think in (True, False):
        asked = tools.chat(model=TOOL_MODEL, messages=QUESTION, think=think, options=few)
        longer = (asked.prompt_eval_count or 0) - (plain.prompt_eval_count or 0)
        assert (longer > 0) == (think is False)


def test_results_of_tools_are_read(tools: ollama.Client) -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    turns = [
        *QUESTION,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "It rains.", "tool_name": "weather"},
    ]
    few = {"num_predict": 2, "temperature": 0}
    answers = [
        tools.chat(model=TOOL_MODEL, messages=asked, tools=[weather], options=few)
        for asked in (QUESTION, turns)
    ]
    assert (answers[1].prompt_eval_count or 0) > (answers[0].prompt_eval_count or 0)


def test_embeddings(client: ollama.Client) -> None:
    answer = client.embed(model=MODEL, input=[PROMPT, "Hello!"])
    assert [round(sum(x * x for x in vector), 3) for vector in answer.embeddings] == [1.0, 1.0]
    single = client.embed(model=f"{MODEL}:latest", input=PROMPT)
    assert single.embeddings[0] == pytest.approx(answer.embeddings[0], abs=1e-4)
    assert single.prompt_eval_count
    short = client.embed(model=MODEL, input=PROMPT, dimensions=8)
    assert len(short.embeddings[0]) == 8
    plain = client.embeddings(model=MODEL, prompt=PROMPT).embedding
    length = sum(x * x for x in plain) ** 0.5
    assert [x / length for x in plain] == pytest.approx(list(single.embeddings[0]), abs=1e-4)


def test_long_texts_are_cut_unless_they_must_not_be(client: ollama.Client) -> None:
    long = "Hello! " * 1000
    context = client.ps().models[0].context_length
    assert client.embed(model=MODEL, input=long).prompt_eval_count == context
    with pytest.raises(ollama.ResponseError, match="input: the prompt has"):
        client.embed(model=MODEL, input=long, truncate=False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [""]}, "input"),
        ({"input": "a", "dimensions": 10**6}, "dimensions"),
        ({"input": "a", "prompt": "b"}, "prompt"),
        ({"input": "a", "options": {"mirostat": 1}}, "mirostat"),
    ],
)
def test_embeddings_are_refused_by_name(
    server: ServeProcess, fields: dict[str, Any], param: str
) -> None:
    answer = httpx.post(f"{server.url}/api/embed", json={"model": MODEL, **fields})
    assert answer.status_code == 400
    assert param in answer.json()["error"]
