"""What clients see while a stage stands still, when time runs out, and when they do not read: their
own libraries and plain sockets, against stages that are really stopped."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.models import Models
from tests.doubles.local_server import LocalServer, read_all
from tests.doubles.waiting import wait_until

MODEL = "tbcluster-demo"
PROMPT = "What is the capital of France?"
QUESTION: Any = [{"role": "user", "content": PROMPT}]
COMPLETIONS = "/v1/completions"
# Far more than can be computed while a test runs.
LONG: dict[str, Any] = {
    "model": MODEL,
    "prompt": "Once",
    "temperature": 0,
    "max_tokens": 100_000,
    "ignore_eos": True,
}
QUICK: dict[str, float] = {"keep_alive_s": 0.1, "first_wait_s": 0.2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(stages=2) as running:
        yield running


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[LocalServer]:
    with LocalServer(Models.of(cluster)) as running:
        yield running


@pytest.fixture(autouse=True)
def gives_all_places_back(server: LocalServer) -> Iterator[None]:
    yield
    wait_until(lambda: num_requests(server) == 0, "all requests have ended")


def num_requests(server: LocalServer) -> int:
    return int(httpx.get(f"{server.url}/health").json()["num_requests"])


@contextmanager
def standing_still(cluster: Cluster) -> Iterator[None]:
    """The last stage does nothing while the block runs."""
    pid = cluster.status().stages[-1].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def chat(url: str) -> str:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def completion(url: str) -> str:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    stream = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, stream=True)
    return "".join(chunk.choices[0].text for chunk in stream)


def response(url: str) -> str:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    with client.responses.stream(model=MODEL, input=PROMPT, temperature=0) as stream:
        return stream.get_final_response().output_text


def message(url: str) -> str:
    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    with client.messages.stream(
        model=MODEL, max_tokens=60, messages=QUESTION, extra_body={"temperature": 0}
    ) as stream:
        return stream.get_final_text()


def line(url: str) -> str:
    parts = ollama.Client(host=url).chat(
        model=MODEL, messages=QUESTION, stream=True, options={"temperature": 0}
    )
    return "".join(part.message.content or "" for part in parts)


CLIENTS: list[Callable[[str], str]] = [chat, completion, response, message, line]


def test_no_client_minds_a_stage_that_stands_still(server: LocalServer, cluster: Cluster) -> None:
    undisturbed = [client(server.url) for client in CLIENTS]
    assert all(undisturbed)
    with server.options(**QUICK), ThreadPoolExecutor(len(CLIENTS)) as pool:
        with standing_still(cluster):
            paused = [pool.submit(client, server.url) for client in CLIENTS]
            wait_until(lambda: num_requests(server) == len(CLIENTS), "all have asked")
            # Whoever asks last is told to wait, and then again: so are all before.
            with streamed(server, COMPLETIONS, {"prompt": "x", "max_tokens": 1}) as last:
                lines_until(last.iter_lines(), ": waiting", 3)
        assert [answer.result(timeout=60) for answer in paused] == undisturbed


def streamed(
    server: LocalServer, path: str, body: dict[str, Any]
) -> AbstractContextManager[httpx.Response]:
    """A stream as it comes."""
    body = {"model": MODEL, "stream": True, **body}
    return httpx.stream("POST", f"{server.url}{path}", json=body, timeout=60)


def test_a_stream_that_waits_says_so(server: LocalServer, cluster: Cluster) -> None:
    body = {**LONG, "max_tokens": 100}
    with server.options(**QUICK), streamed(server, COMPLETIONS, body) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: {")
        with standing_still(cluster):
            told = [said for said in lines_until(lines, ": waiting", 3) if said.startswith(":")]
        assert told == [": waiting"] * 3
        assert list(lines)[-2:] == ["data: [DONE]", ""]


def lines_until(lines: Iterator[str], wanted: str, times: int) -> list[str]:
    """What comes up to a line that comes so many times."""
    seen: list[str] = []
    while seen.count(wanted) < times:
        seen.append(next(lines))
    return seen


@pytest.mark.parametrize(
    ("path", "body", "is_silent"),
    [
        (COMPLETIONS, {"prompt": "x"}, False),
        ("/v1/messages", {"messages": QUESTION, "max_tokens": 9}, False),
        ("/api/generate", {"prompt": "x"}, True),
    ],
)
def test_a_stream_begins_before_its_first_token_where_that_takes_long(
    server: LocalServer, cluster: Cluster, path: str, body: dict[str, Any], is_silent: bool
) -> None:
    with (
        server.options(**QUICK),
        standing_still(cluster),
        streamed(server, path, body) as answer,
    ):
        assert answer.status_code == 200
        if not is_silent:
            assert next(answer.iter_lines()) == ": waiting"


def test_no_first_token_in_time(server: LocalServer, cluster: Cluster) -> None:
    with server.options(queue_timeout_s=0.2), standing_still(cluster):
        refused = httpx.post(f"{server.url}{COMPLETIONS}", json={**LONG, "stream": True})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "queue_timeout"
        assert "Retry-After" in refused.headers
        embedded = {"model": MODEL, "input": "x"}
        assert httpx.post(f"{server.url}/v1/embeddings", json=embedded).status_code == 503
        with server.options(**QUICK, queue_timeout_s=0.4):
            late = httpx.post(f"{server.url}{COMPLETIONS}", json={**LONG, "stream": True})
    assert late.status_code == 200
    *_, error, done = [said for said in late.text.split("\n\n") if said]
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "queue_timeout"
    assert done == "data: [DONE]"


def test_an_answer_that_takes_too_long_is_not_asked_for_again(server: LocalServer) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=2)
    fields: Any = {"extra_body": {"ignore_eos": True}, **LONG}
    del fields["ignore_eos"]
    before = num_refused(server)
    with server.options(request_timeout_s=0.2):
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(**fields)
        assert caught.value.status_code == 504
        assert caught.value.code == "request_timeout"
        assert num_refused(server) == before + 1
        stream = client.completions.create(**fields, stream=True)
        assert next(stream).choices
        with pytest.raises(openai.APIError, match=r"0\.2 s"):
            list(stream)


def num_refused(server: LocalServer) -> float:
    page = httpx.get(f"{server.url}/metrics").text
    found = [row for row in page.splitlines() if 'reason="request_timeout"' in row]
    return sum(float(row.split()[1]) for row in found if "_total" in row)


def test_messages_that_take_too_long_end_in_their_own_words(server: LocalServer) -> None:
    body = {"model": MODEL, "max_tokens": 10**5, "messages": QUESTION, "temperature": 1}
    with server.options(request_timeout_s=1e-6):
        late = httpx.post(f"{server.url}/v1/messages", json=body)
    assert late.status_code == 504
    assert late.json()["error"]["type"] == "timeout_error"
    assert late.headers["x-should-retry"] == "false"


def test_who_does_not_read_is_told_and_holds_up_nobody(server: LocalServer) -> None:
    body = json.dumps({**LONG, "stream": True, "n": 8}).encode()
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with server.options(max_unread=50), server.connect(receive_bytes=2048) as client:
        client.sendall(head.encode() + body)
        wait_until(lambda: num_requests(server) == 8, "it is answered")
        beside = httpx.post(f"{server.url}{COMPLETIONS}", json={**LONG, "max_tokens": 5})
        assert beside.json()["usage"]["completion_tokens"] == 5
        wait_until(lambda: num_requests(server) == 0, "its places have come back")
        assert is_open(client)
        events = read_all(client).decode().split("data: ")
    assert '"code":"slow_reader"' in events[-2]
    assert events[-1].startswith("[DONE]")


def is_open(client: socket.socket) -> bool:
    """Whether the server has not closed the connection, and there is more to read."""
    return len(client.recv(1, socket.MSG_PEEK)) == 1
