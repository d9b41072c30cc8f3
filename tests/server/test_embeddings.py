"""/v1/embeddings over real sockets: OpenAI's own client and httpx, the bundled model in stages."""

import base64
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import uvicorn
from fastapi import FastAPI

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.models import Models
from tbcluster.cluster.streams import stream
from tbcluster.server import problems
from tbcluster.server.desk import Desk, UseGuard
from tbcluster.server.embeddings import MAX_INPUTS, make_router
from tbcluster.server.metrics import Metrics
from tbcluster.server.options import ServerOptions
from tbcluster.server.serving import listen
from tests.doubles.waiting import wait_until

MODEL = "tbcluster-demo"
WIDTH = 128
TEXTS = ["The capital of France is Paris.", "One plus one is two.", "Hello!"]


@pytest.fixture(scope="module")
def cluster(demo_cluster: Cluster) -> Cluster:
    return demo_cluster


@pytest.fixture(scope="module")
def charged() -> list[int]:
    """What callers were charged, in tokens."""
    return []


@pytest.fixture(scope="module")
def http(cluster: Cluster, charged: list[int]) -> Iterator[httpx.Client]:
    app = FastAPI()
    models = Models.of(cluster)
    app.state.metrics = Metrics(models.clusters)
    app.state.options = ServerOptions()
    problems.install(app)
    app.include_router(make_router(Desk(models, 60)))

    app.add_middleware(UseGuard)

    async def with_caller(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["caller"] = SimpleNamespace(
            name="anna", charge=charged.append
        )
        await app(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(with_caller, log_level="warning", lifespan="off"))
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    wait_until(lambda: server.started, "the server is up")
    host, port = listener.getsockname()[:2]
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=60) as client:
        yield client
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def client(http: httpx.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=str(http.base_url.join("/v1")), api_key="none", max_retries=0)


def post(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post("/v1/embeddings", json={"model": MODEL, "input": "hi", **fields})


def vectors(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    assert {item["object"] for item in data} == {"embedding"}
    return np.array([item["embedding"] for item in data])


def test_openais_client(client: openai.OpenAI, cluster: Cluster) -> None:
    """It asks for base64 where nobody says otherwise."""
    got = client.embeddings.create(model=MODEL, input=TEXTS)
    assert got.object == "list"
    assert got.model == MODEL
    assert [item.index for item in got.data] == [0, 1, 2]
    num_tokens = sum(len(cluster.tokenizer.encode(text)) for text in TEXTS)
    assert (got.usage.prompt_tokens, got.usage.total_tokens) == (num_tokens, num_tokens)
    floats = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    for packed, plain in zip(got.data, floats.data, strict=True):
        assert len(plain.embedding) == WIDTH
        assert np.array_equal(packed.embedding, plain.embedding)
        assert np.linalg.norm(plain.embedding) == pytest.approx(1)


def test_base64_is_little_endian_float32(http: httpx.Client) -> None:
    plain = vectors(post(http))[0]
    data = post(http, encoding_format="base64", user="someone").json()["data"]
    assert np.frombuffer(base64.b64decode(data[0]["embedding"]), "<f4").tolist() == plain.tolist()


def test_texts_and_token_arrays(http: httpx.Client, cluster: Cluster) -> None:
    tokens = [cluster.tokenizer.encode(text) for text in TEXTS]
    from_texts = vectors(post(http, input=TEXTS))
    assert np.allclose(vectors(post(http, input=tokens)), from_texts, atol=1e-5)
    assert np.allclose(vectors(post(http, input=tokens[0])), from_texts[:1], atol=1e-5)
    assert np.allclose(vectors(post(http, input=TEXTS[0])), from_texts[:1], atol=1e-5)


def test_pooling_and_normalizing(http: httpx.Client) -> None:
    last, mean = (vectors(post(http, input=TEXTS, pooling=kind)) for kind in ("last", "mean"))
    assert np.allclose(last, vectors(post(http, input=TEXTS)), atol=1e-5)
    assert not np.allclose(last, mean, atol=0.1)
    raw = vectors(post(http, input=TEXTS, pooling="mean", normalize=False))
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.all(np.abs(lengths - 1) > 0.1)
    assert np.allclose(raw / lengths, mean, atol=1e-5)


def test_fewer_dimensions_are_the_first_ones_scaled_anew(http: httpx.Client) -> None:
    whole, cut = vectors(post(http)), vectors(post(http, dimensions=16))
    assert cut.shape == (1, 16)
    assert np.allclose(cut, whole[:, :16] / np.linalg.norm(whole[:, :16]), atol=1e-5)
    raw = vectors(post(http, normalize=False))
    assert np.allclose(vectors(post(http, dimensions=16, normalize=False)), raw[:, :16], atol=1e-5)
    assert vectors(post(http, dimensions=WIDTH)).shape == (1, WIDTH)


def test_known_prefixes_change_nothing(http: httpx.Client, cluster: Cluster) -> None:
    tokens = list(range(300, 500))
    list(stream(cluster, cluster.make_request(tokens, max_tokens=1)))

    def num_spared(**fields: Any) -> tuple[Any, int]:
        before = cluster.statistics().num_cached_tokens
        got = vectors(post(http, input=tokens, **fields))
        return got, cluster.statistics().num_cached_tokens - before

    fresh, num_known = num_spared(cache_prompt=False)
    assert num_known == 0
    again, num_known = num_spared()
    assert num_known == len(tokens) - 1
    assert np.allclose(again, fresh, atol=1e-4)
    assert num_spared(pooling="mean")[1] == 0


def test_more_inputs_than_are_run_at_once(http: httpx.Client, charged: list[int]) -> None:
    inputs = [[300 + number % 50] for number in range(150)]
    got = vectors(post(http, input=inputs))
    assert np.allclose(got[:50], got[50:100], atol=1e-5)
    assert len(np.unique(got[:50].round(4), axis=0)) == 50
    assert charged[-1] == 150


TOO_LONG = [7] * 1025


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "empty"),
        ({"input": ["a", ""]}, "input", "empty"),
        ({"input": [[1], []]}, "input", "empty"),
        ({"input": [1, "a"]}, "input", "must be a text, a list"),
        ({"input": [1.5]}, "input", "must be a text, a list"),
        ({"input": [True]}, "input", "must be a text, a list"),
        ({"input": {"text": "a"}}, "input", "must be a text, a list"),
        ({"input": None}, "input", "must be a text, a list"),
        ({"input": [-1]}, "input", "token id -1"),
        ({"input": [[1], [99999]]}, "input", "input 1: token id 99999"),
        ({"input": TOO_LONG}, "input", "1025 tokens"),
        ({"input": ["x"] * (MAX_INPUTS + 1)}, "input", "at most 2048"),
        ({"encoding_format": "int8"}, "encoding_format", "base64"),
        ({"dimensions": 0}, "dimensions", "greater"),
        ({"dimensions": WIDTH + 1}, "dimensions", "have 128"),
        ({"dimensions": "8"}, "dimensions", "integer"),
        ({"pooling": "max"}, "pooling", "mean"),
        ({"normalize": 1}, "normalize", "boolean"),
        ({"temperature": 1}, "temperature", "no field"),
    ],
)
def test_refused_by_name(http: httpx.Client, fields: Any, param: str, words: str) -> None:
    answer = post(http, **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


def test_a_prompt_as_long_as_the_context(http: httpx.Client) -> None:
    assert vectors(post(http, input=TOO_LONG[:-1])).shape == (1, WIDTH)
    error = post(http, input=TOO_LONG).json()["error"]
    assert error["code"] == "context_length_exceeded"


def test_another_model_is_not_served(http: httpx.Client) -> None:
    answer = post(http, model="text-embedding-3-small")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_a_client_that_leaves_frees_its_places(http: httpx.Client, cluster: Cluster) -> None:
    inputs = [[number] * 1000 for number in range(1, 100)]
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/embeddings", json={"model": MODEL, "input": inputs}, timeout=0.5)
    wait_until(lambda: cluster.status().num_requests == 0, "its requests are gone")
    assert vectors(post(http)).shape == (1, WIDTH)
