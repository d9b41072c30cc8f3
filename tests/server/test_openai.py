"""The OpenAI dialect, as real clients see it: a server process, httpx and OpenAI's own client."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.doubles.checkpoints import write_endless_llama
from tests.doubles.server import ServeProcess
from tests.doubles.waiting import wait_until

MODEL = "tbcluster-demo"
# Greedy: a sampled answer of a random model may end by chance.
ENDLESS: dict[str, Any] = {"prompt": [5], "max_tokens": 10**9, "temperature": 0}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def server() -> Iterator[ServeProcess]:
    with ServeProcess("--stages", "2") as running:
        yield running


@pytest.fixture(scope="module")
def http(server: ServeProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: ServeProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}


def chat(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post("/v1/chat/completions", json={"model": MODEL, "messages": QUESTION, **fields})


def test_a_right_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION)  # type: ignore[arg-type]
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_answer_is_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION)  # type: ignore[arg-type]
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_the_stream_on_the_wire(http: httpx.Client) -> None:
    answer = chat(http, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    bodies = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert {body["object"] for body in bodies} == {"chat.completion.chunk"}
    assert len({body["id"] for body in bodies}) == 1
    assert "usage" not in bodies[-1]


def test_content_may_come_in_parts(http: httpx.Client) -> None:
    parts = [
        {"type": "text", "text": "What is the capital "},
        {"type": "text", "text": "of France?"},
    ]
    answer = chat(http, messages=[{"role": "user", "content": parts}]).json()
    assert answer["choices"] == chat(http).json()["choices"]


def test_stop_text_ends_the_answer_and_is_not_part_of_it(http: httpx.Client) -> None:
    whole = chat(http).json()["choices"][0]["message"]["content"]
    stop = whole[6:10]
    for stream in (False, True):
        answer = chat(http, stop=[stop, "never said"], stream=stream)
        text = streamed_text(answer) if stream else content(answer)
        assert text == whole[: whole.index(stop)]
    assert chat(http, stop=stop).json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_length(http: httpx.Client, field: str) -> None:
    body = chat(http, **{field: 3}).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 3


def test_sampling_fields_do_something(http: httpx.Client) -> None:
    hot: dict[str, Any] = {"temperature": 2.0, "max_tokens": 30}
    first = content(chat(http, seed=1, **hot))
    assert content(chat(http, seed=1, **hot)) == first
    assert content(chat(http, seed=2, **hot)) != first
    greedy = content(chat(http, temperature=0))
    for narrow in ({"top_k": 1}, {"top_p": 0.0001}, {"min_p": 1.0}):
        assert content(chat(http, seed=3, **hot, **narrow)) == greedy


def test_several_choices(http: httpx.Client) -> None:
    body = chat(http, n=3, temperature=2.0, max_tokens=20, seed=5).json()
    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    one = chat(http, temperature=2.0, max_tokens=20, seed=5).json()
    assert texts[0] == one["choices"][0]["message"]["content"]
    assert body["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    events = chat(http, n=2, stream=True).text
    assert '"index":0' in events
    assert '"index":1' in events


def test_completions(client: openai.OpenAI, http: httpx.Client) -> None:
    answer = client.completions.create(model=MODEL, prompt="The capital of", max_tokens=4)
    assert answer.object == "text_completion"
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 4
    streamed = client.completions.create(
        model=MODEL, prompt="The capital of", max_tokens=4, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.choices[0].text
    both = client.completions.create(model=MODEL, prompt=["The capital of", "Hello"], max_tokens=4)
    assert both.choices[0].text == answer.choices[0].text
    assert len(both.choices) == 2
    tokens = client.completions.create(model=MODEL, prompt=[300, 301], max_tokens=4)
    assert tokens.usage is not None
    assert tokens.usage.prompt_tokens == 2


def test_models(client: openai.OpenAI, http: httpx.Client) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")
    assert http.get("/v1/models/owner/name").status_code == 404


def test_health(http: httpx.Client) -> None:
    answer = http.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok"
    assert [stage["layers"] for stage in body["stages"]] == [[0, 4], [4, 8]]
    kv = body["kv_cache"]
    assert len(kv["used_bytes"]) == len(kv["budget_bytes"]) == 2
    assert all(0 <= u <= b for u, b in zip(kv["used_bytes"], kv["budget_bytes"], strict=True))


def long_turn(word: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{word} is a word. " * 12 + "What is 17 plus 25?"}]


def cached(usage: Any) -> int:
    return int(usage.prompt_tokens_details.cached_tokens)


def test_known_prefixes_show_in_the_usage(client: openai.OpenAI) -> None:
    def ask(messages: list[dict[str, str]], **fields: Any) -> Any:
        return client.chat.completions.create(
            model=MODEL,
            messages=messages,  # type: ignore[arg-type]
            temperature=0,
            **fields,
        )

    turns = long_turn("Heron")
    first = ask(turns)
    assert cached(first.usage) == 0
    again = ask(turns)
    assert cached(again.usage) == first.usage.prompt_tokens - 1
    assert again.choices[0].message.content == first.choices[0].message.content
    turns.append({"role": "assistant", "content": first.choices[0].message.content})
    turns.append({"role": "user", "content": "And what is 2 plus 2?"})
    second = ask(turns)
    assert cached(second.usage) > first.usage.prompt_tokens
    streamed = list(ask(turns, stream=True, stream_options={"include_usage": True}))
    assert cached(streamed[-1].usage) == second.usage.prompt_tokens - 1


def test_a_request_may_stay_out_of_the_prefix_cache(client: openai.OpenAI) -> None:
    def ask(cache_prompt: bool) -> int:
        answer = client.chat.completions.create(
            model=MODEL,
            messages=long_turn("Otter"),  # type: ignore[arg-type]
            max_tokens=2,
            extra_body={"cache_prompt": cache_prompt},
        )
        return cached(answer.usage)

    assert [ask(False), ask(True), ask(False), ask(True) > 0] == [0, 0, 0, True]


def test_choices_share_their_prompt(http: httpx.Client) -> None:
    body = {"model": MODEL, "messages": long_turn("Badger"), "n": 3, "temperature": 0}
    answer = http.post("/v1/chat/completions", json=body).json()
    assert len({choice["message"]["content"] for choice in answer["choices"]}) == 1
    # The prompt was computed once, and that is what the usage counts.
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": "hello"}, 400, "messages", "list"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages.0.role", "wizard"),
        ({"messages": [{"role": "user"}]}, 400, "messages", "has no content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages", "tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            400,
            "messages",
            "this model reads text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "b": 1}]}]},
            400,
            "messages.0.content.0.b",
            "no such field",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            400,
            "messages",
            "has no text",
        ),
        ({"model": "gpt-4"}, 404, "model", "'gpt-4' is not served here: use 'tbcluster-demo'"),
        ({"model": None}, 400, "model", "string"),
        ({"temperature": 3}, 400, "temperature", "2"),
        ({"temperature": "hot"}, 400, "temperature", "number"),
        ({"top_p": 0}, 400, "top_p", "greater than 0"),
        ({"max_tokens": 0}, 400, "max_tokens", "1"),
        ({"n": 0}, 400, "n", "1"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop", "at most 4"),
        ({"stop": ""}, 400, "stop", "empty"),
        ({"seed": 2**70}, 400, "seed", "less than"),
        ({"top_k": 10**30}, 400, "top_k", "less than"),
        ({"stop": "x" * 2000}, 400, "stop", "longer"),
        ({"tools": [{"type": "function"}]}, 400, "tools.0.function", "required"),
        ({"tools": [WEATHER]}, 400, "tools", "knows no tools"),
        ({"tool_choice": "required"}, 400, "tool_choice", "there are no tools"),
        ({"response_format": {"type": "yaml"}}, 400, "response_format.type", "yaml"),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format", "json_schema"),
        (
            {"response_format": json_schema({"type": "no such type"})},
            400,
            "response_format",
            "no such type",
        ),
        ({"regex": "("}, 400, "regex", "regex"),
        ({"grammar": "start: nothing"}, 400, "grammar", "nothing"),
        ({"regex": "a", "grammar": "start: /a/"}, 400, "grammar", "choose one"),
        ({"logit_bias": {"x": 5}}, 400, "logit_bias", "no token id"),
        ({"logit_bias": {"99999": 5}}, 400, "logit_bias", "99999"),
        ({"logit_bias": {"1": 101}}, 400, "logit_bias", "100"),
        ({"presence_penalty": 2.5}, 400, "presence_penalty", "2"),
        ({"repetition_penalty": 0}, 400, "repetition_penalty", "greater than 0"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "logprobs=true"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs", "20"),
        ({"logprobs": 1}, 400, "logprobs", "boolean"),
        ({"reasoning_effort": "high"}, 400, "reasoning_effort", "leave it out"),
        ({"reasoning_effort": "lots"}, 400, "reasoning_effort", "lots"),
        ({"audio": {"voice": "alloy"}}, 400, "audio", "not served"),
        ({"n": "2"}, 400, "n", "integer"),
        ({"stream": "yes"}, 400, "stream", "boolean"),
        ({"cache_prompt": "no"}, 400, "cache_prompt", "boolean"),
        ({"tempreature": 1}, 400, "tempreature", "no field"),
        ({"messages": [{"role": "user", "content": "x" * 9000}]}, 400, "messages", "shorten"),
    ],
)
def test_bad_fields_are_refused_by_name(
    http: httpx.Client, fields: dict[str, Any], status: int, param: str, words: str
) -> None:
    for stream in (False, True):
        answer = chat(http, **{"stream": stream, **fields})
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["param"] is None or error["param"].startswith(param)
        assert (error["param"] or "").split(".")[0] == param.split(".")[0]
        assert words in error["message"]
        assert error["type"] == "invalid_request_error"


def test_stream_options_need_a_stream(http: httpx.Client) -> None:
    answer = chat(http, stream_options={"include_usage": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "stream_options"


def test_fields_that_change_nothing_are_accepted(http: httpx.Client) -> None:
    neutral: dict[str, Any] = {
        "user": "someone",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "logit_bias": None,
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "reasoning_effort": "none",
        "modalities": ["text"],
        "logprobs": False,
    }
    assert content(chat(http, **neutral)) == content(chat(http))


def test_a_body_of_another_type_says_what_to_send(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", content=b'{"model": "x"}')
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "tbcluster-demo", ', b"\xff\xfe"])
def test_malformed_json(http: httpx.Client, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = http.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_unknown_paths_answer_in_the_same_shape(http: httpx.Client) -> None:
    assert http.get("/v1/nothing").json()["error"]["message"] == "GET /v1/nothing: Not Found"
    assert http.get("/v1/chat/completions").status_code == 405


def test_an_empty_completion_prompt(http: httpx.Client) -> None:
    for prompt in ("", [], [[]]):
        answer = http.post("/v1/completions", json={"model": MODEL, "prompt": prompt})
        assert answer.status_code == 400, prompt
        assert answer.json()["error"]["param"] == "prompt"


def test_who_goes_away_and_ctrl_c_end_requests_that_would_never_end(tmp_path: Path) -> None:
    folder = write_endless_llama(tmp_path / "endless")
    body = {"model": "endless", **ENDLESS, "stream": True}
    with ServeProcess(str(folder), "--stages", "1") as server:
        leave_while_it_runs(server, {**body, "stream": False})
        leave_while_it_runs(server, body)
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.press_ctrl_c()
            wait_until(lambda: "finishing 1 request" in server.output, "it says what it waits for")
            next(lines)
            server.press_ctrl_c()
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == "shutting_down"
        server.interrupt()
    assert "Traceback" not in server.output


def leave_while_it_runs(server: ServeProcess, body: dict[str, Any]) -> None:
    """Ask for a completion and hang up: the request ends."""
    with httpx.Client(base_url=server.url) as http:

        def num_requests() -> int:
            return int(http.get("/health").json()["num_requests"])

        with socket.create_connection(http.base_url.netloc.decode().split(":")) as raw:
            raw.sendall(post("/v1/completions", body))
            wait_until(lambda: num_requests() == 1, "the request runs")
        wait_until(lambda: num_requests() == 0, "the request has ended")


def post(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def test_a_stream_goes_on_when_a_stage_is_killed(http: httpx.Client) -> None:
    body = {"model": MODEL, "prompt": [300] * 9, "max_tokens": 150, "stream": True, "n": 4}
    body |= {"seed": 1, "ignore_eos": True, "cache_prompt": False}
    undisturbed = choices_of(http.post("/v1/completions", json=body).text.splitlines())
    victim = http.get("/health").json()["stages"][1]["pid"]
    with http.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        os.kill(victim, signal.SIGKILL)
        assert choices_of([first, *lines]) == undisturbed

    # Asked while the stage may still be checked, a request waits and is answered.
    assert "Paris" in content(chat(http))
    health = http.get("/health").json()
    assert health["status"] == "ok"
    assert [stage["num_restarts"] for stage in health["stages"]] == [0, 1]


def choices_of(lines: list[str]) -> dict[int, str]:
    """The text of each choice of a stream of completions, which has to be whole."""
    events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    texts: dict[int, str] = {}
    for event in events[:-1]:
        (choice,) = json.loads(event)["choices"]
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


def content(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def streamed_text(answer: httpx.Response) -> str:
    bodies = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    pieces = [json.loads(body)["choices"][0]["delta"] for body in bodies if body != "[DONE]"]
    return "".join(piece.get("content", "") for piece in pieces)
