"""/tokenize and /detokenize."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tbcluster.cluster.cluster import Cluster
from tests.doubles.local_server import LocalServer

MODEL = "tbcluster-demo"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with (
        Cluster(stages=1) as cluster,
        LocalServer(cluster) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


def tokenize(http: httpx.Client, **fields: Any) -> Any:
    answer = http.post("/tokenize", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_text_there_and_back(http: httpx.Client) -> None:
    for text in ("Hello, world", "", "naïve 😀\x00\n", "a" * 5000):
        body = tokenize(http, prompt=text, add_special_tokens=False)
        assert body["count"] == len(body["tokens"])
        assert body["max_model_len"] == 1024
        answer = http.post("/detokenize", json={"model": MODEL, "tokens": body["tokens"]})
        assert answer.json() == {"prompt": text}


def test_it_counts_what_the_model_will_be_given(http: httpx.Client) -> None:
    count = tokenize(http, model=MODEL, messages=QUESTION)["count"]
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 1}
    usage = http.post("/v1/chat/completions", json=body).json()["usage"]
    assert count == usage["prompt_tokens"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "words"),
    [
        ("/tokenize", {}, 400, "prompt", "either prompt or messages"),
        ("/tokenize", {"prompt": "x", "messages": QUESTION}, 400, "prompt", "not both"),
        ("/tokenize", {"prompt": 3}, 400, "prompt", "string"),
        ("/tokenize", {"prompt": "x", "add_special_tokens": "no"}, 400, "add_special", "boolean"),
        ("/tokenize", {"prompt": "x", "tools": [{}]}, 400, "tools", "required"),
        ("/tokenize", {"messages": QUESTION, "add_special_tokens": True}, 400, "add_", "template"),
        ("/tokenize", {"messages": []}, 400, "messages", "at least 1"),
        ("/tokenize", {"prompt": "x", "prompts": "y"}, 400, "prompts", "no field"),
        ("/tokenize", {"prompt": "x", "model": "gpt-4"}, 404, "model", "not served here"),
        ("/detokenize", {}, 400, "tokens", "required"),
        ("/detokenize", {"tokens": "1"}, 400, "tokens", "list"),
        ("/detokenize", {"tokens": [1.5]}, 400, "tokens.0", "integer"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens", "tokens holds -1, ids are from 0 to"),
        ("/detokenize", {"tokens": [2**63]}, 400, "tokens", str(2**63)),
        ("/detokenize", {"tokens": [10**400]}, 400, "tokens", "more than 64 bits"),
        ("/detokenize", {"tokens": [1], "skip": True}, 400, "skip", "no field"),
        ("/detokenize", {"tokens": [1], "model": "gpt-4"}, 404, "model", "not served here"),
    ],
)
def test_bad_fields_are_refused_by_name(
    http: httpx.Client, path: str, body: dict[str, Any], status: int, param: str, words: str
) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    assert words in error["message"]
