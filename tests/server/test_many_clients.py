"""32 clients at once, half of whom leave: no answer has anything of another's in it."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.doubles.server import ServeProcess
from tests.doubles.waiting import wait_until

MODEL = "tbcluster-demo"
NUM_CLIENTS = 32
SEED = 11
SUBJECTS = ("France", "Japan", "Peru", "Kenya", "Norway", "Egypt", "Chile", "India")
OPENINGS = ("The capital of", "Once upon a", "Two plus two is", "Water boils at", "My name is")

# What a client has had of each choice.
Texts = dict[int, str]


@dataclass(frozen=True)
class Client:
    """One request, and after how many events its client leaves; None for one that stays."""

    path: str
    body: dict[str, Any]
    leaves_after: int | None = None

    @property
    def is_streamed(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass
class Had:
    """What a client has had, and whether that was all."""

    texts: Texts = field(default_factory=dict)
    is_whole: bool = False


def planned_clients() -> list[Client]:
    """Chats and completions, one choice and two, streamed and not."""
    source = random.Random(SEED)
    clients = []
    for number in range(NUM_CLIENTS):
        body: dict[str, Any] = {
            "model": MODEL,
            "temperature": 0,
            "max_tokens": source.randrange(16, 40),
            "cache_prompt": False,
            "ignore_eos": number % 4 == 0,
            "n": 2 if number % 5 == 0 else 1,
            "stream": number % 3 != 2,
        }
        subject = source.choice(SUBJECTS)
        if number % 2:
            path = "/v1/chat/completions"
            question = f"What is the capital of {subject}, number {number}?"
            body["messages"] = [{"role": "user", "content": question}]
        else:
            path = "/v1/completions"
            body["prompt"] = f"{number}. {source.choice(OPENINGS)} {subject}"
        leaves_after = source.randrange(1, 15) if number % 4 < 2 else None
        clients.append(Client(path, body, leaves_after))
    return clients


async def run(http: httpx.AsyncClient, client: Client) -> Had:
    """Ask, and read until the end or until the client leaves. Whoever leaves without a stream has
    nothing yet."""
    if client.is_streamed:
        return await _streamed(http, client)
    request = http.post(client.path, json=client.body)
    if client.leaves_after is not None:
        try:
            answer = await asyncio.wait_for(request, client.leaves_after / 50)
        except TimeoutError:
            return Had()
    else:
        answer = await request
    assert answer.status_code == 200, answer.text
    choices = answer.json()["choices"]
    return Had({choice["index"]: _text(choice) for choice in choices}, is_whole=True)


async def _streamed(http: httpx.AsyncClient, client: Client) -> Had:
    had, num_events = Had(), 0
    async with http.stream("POST", client.path, json=client.body) as answer:
        assert answer.status_code == 200
        async with aclosing(_events(answer)) as events:
            async for event in events:
                for choice in event["choices"]:
                    index = choice["index"]
                    had.texts[index] = had.texts.get(index, "") + _text(choice)
                num_events += 1
                if num_events == client.leaves_after:
                    return had
    had.is_whole = True
    return had


async def _events(answer: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    async for line in answer.aiter_lines():
        if line == "data: [DONE]":
            return
        if line:
            event = json.loads(line.removeprefix("data: "))
            assert "error" not in event, event
            yield event
    raise AssertionError("the stream broke off")


def _text(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return str(choice["text"])
    said = choice.get("message") or choice["delta"]
    return said.get("content") or ""


@pytest.fixture(scope="module")
def server() -> Iterator[ServeProcess]:
    """One of its own: what it holds in the end must be nothing."""
    with ServeProcess("--stages", "2") as running:
        yield running


def test_nobody_hears_another_and_every_place_comes_back(server: ServeProcess) -> None:
    clients = planned_clients()

    async def alone_then_together() -> tuple[list[Had], list[Had]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as http:
            stayed = [Client(client.path, client.body) for client in clients]
            alone = [await run(http, client) for client in stayed]
            return alone, await asyncio.gather(*(run(http, client) for client in clients))

    alone, together = asyncio.run(alone_then_together())
    num_left = 0
    for client, lone, had in zip(clients, alone, together, strict=True):
        assert lone.is_whole
        if client.leaves_after is None or had.is_whole:
            assert had == lone, client
            continue
        num_left += 1
        for index, text in had.texts.items():
            assert lone.texts[index].startswith(text), client
    assert num_left >= NUM_CLIENTS // 3
    assert any(had.texts for had, client in zip(together, clients, strict=True) if not had.is_whole)

    def health() -> dict[str, Any]:
        body: dict[str, Any] = httpx.get(f"{server.url}/health").json()
        return body

    wait_until(lambda: health()["num_requests"] == 0, "no request is open")
    wait_until(lambda: not any(health()["kv_cache"]["used_bytes"]), "no cache is held")
    assert "Traceback" not in server.output
