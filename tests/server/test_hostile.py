"""Hostile clients: each is refused or cut, and the server is afterwards as it was before."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import httpx
import psutil
import pytest

from tests.doubles.impatient_server import OPTIONS, ImpatientServer
from tests.doubles.malformed import Attack, Outcome, attacks, perform
from tests.doubles.malformed.attack import Behaviour, post
from tests.doubles.waiting import wait_until

MODEL = "tbcluster-demo"
QUESTION: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}
SEED = 4
NUM_ATTACKS = 200
NUM_AT_ONCE = 12
# Far more than any deadline of the server, on a machine that does much else.
DEADLINE_S = 40.0
DEAF_S = 2 * OPTIONS.write_timeout_s
# Threads that the web framework keeps for what would hold up its event loop.
POOL_THREADS = 40


@pytest.fixture(scope="module")
def server() -> Iterator[ImpatientServer]:
    with ImpatientServer() as running:
        yield running


def answer_of(server: ImpatientServer) -> str:
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=QUESTION, timeout=60)
    return str(answer.json()["choices"][0]["message"]["content"])


def num_requests(server: ImpatientServer) -> int:
    return int(httpx.get(f"{server.url}/health", timeout=60).json()["num_requests"])


def carry_out(server: ImpatientServer, planned: Iterator[Attack]) -> list[Outcome]:
    """All of them, some at once. They are made when they are needed: some have megabytes."""
    outcomes: list[Outcome] = []
    lock = threading.Lock()

    def run(_: int) -> None:
        while True:
            with lock:
                attack = next(planned, None)
            if attack is None:
                return
            outcomes.append(perform(attack, server.port, DEADLINE_S, DEAF_S))

    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        list(pool.map(run, range(NUM_AT_ONCE)))
    return outcomes


def test_hostile_clients_are_refused_and_leave_nothing_behind(server: ImpatientServer) -> None:
    process = psutil.Process(server.process.pid)
    before = answer_of(server)
    assert "Paris" in before
    wait_until(lambda: not process.net_connections("tcp")[1:], "its connection is closed")
    num_files, num_threads = process.num_fds(), process.num_threads()

    outcomes = carry_out(server, attacks(SEED, NUM_ATTACKS, MODEL))
    wrong = [f"{one.attack}: {one.complaint}" for one in outcomes if one.complaint]
    assert not wrong, "\n".join(wrong)
    assert len(outcomes) == NUM_ATTACKS

    wait_until(lambda: num_requests(server) == 0, "every request has ended")
    assert answer_of(server) == before
    wait_until(lambda: process.num_fds() <= num_files, "all its files are closed")
    assert process.num_threads() <= num_threads + POOL_THREADS
    used = process.cpu_times().user
    wait_until(lambda: _is_idle(process), "nothing is computed any more")
    assert process.cpu_times().user - used < DEADLINE_S
    assert "Traceback" not in server.output


def _is_idle(process: psutil.Process) -> bool:
    return process.cpu_percent(interval=0.2) < 20


LONG = "x" * (4 << 20)


@pytest.mark.parametrize(
    ("path", "fields", "param", "words"),
    [
        ("/v1/chat/completions", {"grammar": 'start: "a" start'}, None, "cannot be followed"),
        (
            "/v1/chat/completions",
            {"chat_template_kwargs": {"chat_template": "{% for i in range(9) %}{% endfor %}"}},
            "chat_template_kwargs",
            "'chat_template'",
        ),
        (
            "/v1/chat/completions",
            {"chat_template_kwargs": {"messages": []}},
            "chat_template_kwargs",
            "'messages'",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "assistant", "content": LONG}, *QUESTION["messages"]]},
            "messages",
            "shorten",
        ),
        ("/v1/completions", {"prompt": LONG}, "prompt", "shorten"),
        ("/v1/embeddings", {"input": ["short", LONG]}, "input", "shorten"),
        ("/tokenize", {"prompt": LONG}, "prompt", "shorten"),
    ],
)
def test_what_would_take_long_is_refused_by_name(
    server: ImpatientServer, path: str, fields: dict[str, Any], param: str | None, words: str
) -> None:
    body: dict[str, Any] = {"model": MODEL}
    if "chat" in path:
        body |= QUESTION
    answer = httpx.post(f"{server.url}{path}", json={**body, **fields}, timeout=DEADLINE_S)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]
    assert len(error["message"]) < 400


def test_every_kind_of_attack_is_among_them() -> None:
    seen = list(attacks(SEED, NUM_ATTACKS, MODEL))
    assert {attack.behaviour for attack in seen} == set(Behaviour)
    again = islice(attacks(SEED, NUM_ATTACKS, MODEL), 40)
    assert [attack.data for attack in again] == [attack.data for attack in seen[:40]]


@pytest.mark.parametrize(
    ("attack", "complaint"),
    [
        (Attack("", "/tokenize", post("/tokenize", b'{"prompt": "Hi"}')), "answered with 200"),
        (Attack("", "/v1/messages", post("/tokenize", b"{")), "another shape"),
        (Attack("", "/", b"", Behaviour.STALL), "closed without an answer"),
    ],
)
def test_what_is_not_allowed_is_found(
    server: ImpatientServer, attack: Attack, complaint: str
) -> None:
    outcome = perform(attack, server.port, DEADLINE_S)
    assert complaint in (outcome.complaint or "")


def test_an_answer_that_does_not_come_is_found(server: ImpatientServer) -> None:
    attack = Attack("", "/", b"GET / HT", Behaviour.STALL)
    outcome = perform(attack, server.port, OPTIONS.header_timeout_s / 4)
    assert "nothing came" in (outcome.complaint or "")
