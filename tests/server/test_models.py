"""Several models on one server: listed, loaded, used at once, unloaded."""

import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import mlx_lm
import ollama
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.models.catalogue import Catalogue, Loadable
from tbcluster.cluster.models.models import Models
from tbcluster.cluster.models.residency import ModelState, Rules
from tbcluster.cluster.models.views import ModelView
from tbcluster.demo import MODEL_PATH
from tbcluster.planner.plan import Plan
from tbcluster.server.openai.models import model_card
from tbcluster.server.options import ServerOptions
from tests.doubles.checkpoints import write_endless_llama
from tests.doubles.clusters import ScriptedMachine
from tests.doubles.local_server import LocalServer
from tests.doubles.waiting import wait_until

DEMO, TOY = "tbcluster-demo", "toy"
GIB = 2**30
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PROMPT = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with a random one in it, whose answers do not end by themselves."""
    folder = tmp_path_factory.mktemp("models")
    write_endless_llama(folder / TOY)
    return folder


class Maker:
    """Makes clusters of one stage, counts them, and keeps none."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.newest: weakref.ref[Cluster] | None = None

    def __call__(
        self,
        loadable: Loadable,
        *,
        taken_bytes: Mapping[str, int],
        on_plan: Callable[[Plan], None],
        **_: Any,
    ) -> Cluster:
        made = Cluster(
            loadable.source,
            stages=1,
            kv=KvOptions(memory_bytes=64 << 20),
            taken_bytes=taken_bytes,
            on_plan=on_plan,
        )
        self.made.append(made.model_name)
        self.newest = weakref.ref(made)
        return made


@pytest.fixture(scope="module")
def maker() -> Maker:
    return Maker()


@pytest.fixture(scope="module")
def server(toy: Path, maker: Maker) -> Iterator[LocalServer]:
    """The bundled model, and the other one when a request names it."""
    catalogue = Catalogue((Loadable(DEMO, None),), (toy,))
    with Models(catalogue, maker, Rules(loads_on_use=True), drain_s=30) as models:
        models.load_now(DEMO)
        models.start()
        with LocalServer(models) as running:
            yield running


@pytest.fixture(scope="module")
def http(server: LocalServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def complete(http: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    body = {"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, **fields}
    return http.post("/v1/completions", json=body)


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def states(http: httpx.Client) -> dict[str, str]:
    cards = http.get("/v1/models").json()["data"]
    return {card["id"]: card["status"]["value"] for card in cards}


def unload(http: httpx.Client, **fields: Any) -> None:
    answer = http.post("/models/unload", json={"wait": True, **fields})
    assert answer.json() == {"success": True}


def test_two_clients_who_name_a_model_load_it_once_and_both_models_answer(
    http: httpx.Client, maker: Maker, toy: Path
) -> None:
    assert states(http) == {DEMO: "loaded", TOY: "unloaded"}
    texts: list[str] = []
    clients = [
        threading.Thread(target=lambda: texts.append(text_of(complete(http, TOY))))
        for _ in range(2)
    ]
    for client in clients:
        client.start()
    wait_until(lambda: states(http)[TOY] == "loading", "it is being loaded")
    # The other one goes on answering meanwhile.
    chat = {"model": DEMO, "messages": QUESTION, "max_tokens": 16, "temperature": 0}
    said = http.post("/v1/chat/completions", json=chat).json()
    assert "Paris" in said["choices"][0]["message"]["content"]
    assert said["model"] == DEMO
    for client in clients:
        client.join()
    assert maker.made == [DEMO, TOY]
    model, tokenizer = mlx_lm.load(str(toy / TOY))[:2]
    alone = mlx_lm.stream_generate(model, tokenizer, PROMPT, max_tokens=8)
    expected = tokenizer.decode([part.token for part in alone])
    assert texts == [expected, expected]
    assert states(http) == {DEMO: "loaded", TOY: "loaded"}


def test_each_dialect_lists_them(server: LocalServer, http: httpx.Client) -> None:
    complete(http, TOY)
    assert http.get("/models").json() == http.get("/v1/models").json()
    card = http.get(f"/v1/models/{TOY}").json()
    assert card["context_length"] == 10**9
    assert card["status"] == {"value": "loaded"}
    anthropic = {"anthropic-version": "2023-06-01"}
    page = http.get("/v1/models", headers=anthropic).json()
    assert [model["id"] for model in page["data"]] == [DEMO, TOY]
    assert (page["first_id"], page["last_id"]) == (DEMO, TOY)
    client = ollama.Client(server.url)
    assert [model.model for model in client.list().models] == [DEMO, TOY]
    assert {model.model for model in client.ps().models} == {DEMO, TOY}
    assert client.show(f"{TOY}:latest").details is not None


def test_status_pages_tell_of_each(http: httpx.Client) -> None:
    for model in (DEMO, TOY):
        complete(http, model)
    health = http.get("/health").json()
    assert health["model"] == DEMO
    assert set(health["models"]) == {DEMO, TOY}
    toy = health["models"][TOY]
    assert (toy["status"], toy["model"]) == ("ok", TOY)
    assert (toy["stages"][0]["state"], toy["stages"][0]["replica"]) == ("ready", 0)
    counted = {
        (sample.name, sample.labels.get("model"))
        for family in text_string_to_metric_families(http.get("/metrics").text)
        for sample in family.samples
    }
    for model in (DEMO, TOY):
        assert ("tbcluster_requests_total", model) in counted
        assert ("tbcluster_generated_tokens_total", model) in counted


def test_a_model_is_unloaded_by_force_and_comes_back_with_the_same_words(
    http: httpx.Client, maker: Maker
) -> None:
    before = text_of(complete(http, TOY))
    num_made, used = len(maker.made), maker.newest
    # Greedy: a sampled answer may end by itself before it is ended.
    body = {"model": TOY, "prompt": PROMPT, "max_tokens": 10**6, "temperature": 0, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        unload(http, model=TOY, force=True)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    error = json.loads(rest[-2].removeprefix("data: "))["error"]
    assert error["message"] == "toy is being unloaded"
    assert states(http) == {DEMO: "loaded", TOY: "unloaded"}
    assert http.post("/models/load", json={"model": TOY}).json() == {"success": True}
    assert states(http)[TOY] in ("loading", "loaded")
    assert text_of(complete(http, TOY)) == before
    assert len(maker.made) == num_made + 1
    assert used is not None
    wait_until(lambda: gc.collect() >= 0 and used() is None, "nothing is left of the first one")


def test_a_request_may_say_how_long_its_model_stays(
    server: LocalServer, http: httpx.Client
) -> None:
    client = ollama.Client(server.url)
    few = {"num_predict": 2}
    client.generate(model=TOY, prompt="a", raw=True, options=few, keep_alive="10m")
    expiries = {model.model: model.expires_at for model in client.ps().models}
    toy, demo = expiries[TOY], expiries[DEMO]
    assert toy is not None
    assert demo is not None
    assert toy.year < demo.year == 9999
    assert client.generate(model=TOY, keep_alive=0).done_reason == "unload"
    wait_until(lambda: states(http)[TOY] == "unloaded", "it has gone")
    assert {model.model for model in client.ps().models} == {DEMO}


def test_a_name_that_nobody_knows(http: httpx.Client) -> None:
    for path in ("/v1/completions", "/models/load", "/models/unload"):
        refused = http.post(
            path, json={"model": "gpt-4", "prompt": "x"} if "v1" in path else {"model": "gpt-4"}
        )
        assert refused.status_code == 404
        error = refused.json()["error"]
        assert error["code"] == "model_not_found"
        assert error["message"].endswith("use 'tbcluster-demo' or 'toy'")


# Without real models: what is refused, and in which words.


class Bench:
    """A server of models that take memory which does not exist: 5 GiB hold two of three."""

    def __init__(self, rules: Rules | None = None, *, waits: bool = False) -> None:
        sizes = dict.fromkeys(("a", "b", "c"), 2 * GIB) | {"huge": 9 * GIB}
        self.machine = ScriptedMachine(5 * GIB, sizes, waits=waits)
        catalogue = Catalogue(tuple(Loadable(name, name, MODEL_PATH) for name in sizes))
        self.models = Models(catalogue, self.machine, rules, drain_s=0.1)


@pytest.fixture
def bench() -> Iterator[tuple[Bench, httpx.Client]]:
    made = Bench()
    with (
        made.models.start(),
        LocalServer(made.models) as running,
        httpx.Client(base_url=running.url, timeout=30) as client,
    ):
        yield made, client


def load(client: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    return client.post("/models/load", json={"model": model, "wait": True, **fields})


def test_a_model_that_is_not_loaded_is_a_404_with_the_way_out(
    bench: tuple[Bench, httpx.Client],
) -> None:
    _, client = bench
    refused = complete(client, "b")
    assert refused.status_code == 404
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_loaded", "model")
    assert "`tbcluster load b`" in error["message"]
    ready = client.get("/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "unloaded"})
    health = client.get("/health").json()
    assert (health["doing"], health["stages"], health["models"]) == (None, [], {})
    shown = client.post("/api/show", json={"model": "b:latest"}).json()
    assert shown["details"]["family"] == "llama"
    assert client.get("/v1/models/b").json()["context_length"] == 1024


def test_what_does_not_fit_names_the_numbers(bench: tuple[Bench, httpx.Client]) -> None:
    _, client = bench
    refused = load(client, "huge")
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "does_not_fit")
    assert f"takes {9 * GIB} bytes" in refused.json()["error"]["message"]
    for name in ("a", "b"):
        assert load(client, name).json() == {"success": True}
    refused = load(client, "c")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_room")
    assert "beside a (2.00 GiB), b (2.00 GiB)" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) > 0
    status = client.get("/v1/models/c").json()["status"]
    assert (status["value"], status["failed"]) == ("unloaded", True)
    assert "does not fit beside" in status["error"]
    assert load(client, "c", switch=True).json() == {"success": True}
    assert states(client) == {"a": "unloaded", "b": "loaded", "c": "loaded", "huge": "unloaded"}


@pytest.fixture
def waiting_bench() -> Iterator[tuple[Bench, httpx.Client, ThreadPoolExecutor]]:
    """Models that are loaded when the test says so."""
    made = Bench(waits=True)
    with (
        made.models.start(),
        LocalServer(made.models) as running,
        httpx.Client(base_url=running.url, timeout=30) as client,
        ThreadPoolExecutor() as pool,
    ):
        yield made, client, pool


def test_loads_that_are_asked_for_at_once_run_one_after_the_other(
    waiting_bench: tuple[Bench, httpx.Client, ThreadPoolExecutor],
) -> None:
    made, client, pool = waiting_bench
    loads = {name: pool.submit(load, client, name) for name in ("a", "b")}
    for _ in loads:
        wait_until(lambda: bool(made.machine.starting), "one is being loaded")
        (name,) = made.machine.starting
        health = client.get("/health").json()
        assert health["models"][name]["status"] == "starting"
        assert health["models"][name]["doing"] == "loading stage 0"
        made.machine.newest(name).may_start.set()
        assert loads[name].result(30).json() == {"success": True}
    assert made.machine.most_at_once == 1


def test_a_load_that_hangs_is_ended_by_unloading(
    waiting_bench: tuple[Bench, httpx.Client, ThreadPoolExecutor],
) -> None:
    made, client, pool = waiting_bench
    asked = pool.submit(load, client, "a")
    wait_until(lambda: made.machine.starting == ["a"], "it is being loaded")
    assert client.get("/ready").json() == {"status": "loading"}
    unload(client, model="a")
    refused = asked.result(30)
    assert refused.status_code == 503
    assert refused.json()["error"]["message"] == "a was unloaded before it was loaded"
    assert states(client)["a"] == "unloaded"
    assert client.get("/v1/models/a").json()["status"] == {"value": "unloaded"}


def test_a_model_without_one_of_its_replicas_has_not_failed() -> None:
    loadable = Loadable("a", "a", MODEL_PATH)
    lame = ModelView(loadable, ModelState.LOADED, error="replica 1: gone")
    assert model_card(lame, 0.0)["status"] == {
        "value": "loaded",
        "failed": False,
        "error": "replica 1: gone",
    }


def test_who_waits_too_long_is_asked_to_come_again() -> None:
    made = Bench(Rules(loads_on_use=True), waits=True)
    with (
        made.models.start(),
        LocalServer(made.models, ServerOptions(load_wait_s=0.3)) as running,
        httpx.Client(base_url=running.url, timeout=30) as client,
    ):
        assert client.get("/ready").json() == {"status": "ok"}
        late = complete(client, "a")
        assert (late.status_code, late.json()["error"]["code"]) == (503, "loading")
        assert "loading stage 0" in late.json()["error"]["message"]
        assert int(late.headers["retry-after"]) > 0
        assert states(client)["a"] == "loading"
        made.machine.newest("a").may_start.set()
        wait_until(lambda: states(client)["a"] == "loaded", "it is loaded all the same")
        # Who has gone holds nothing back.
        assert made.models.view("a").num_uses == 0


def test_a_client_that_goes_away_while_it_waits_holds_nothing_back() -> None:
    made = Bench(Rules(loads_on_use=True), waits=True)
    with made.models.start(), LocalServer(made.models) as running:
        hasty = httpx.Client(base_url=running.url, timeout=0.2)
        with hasty as client, pytest.raises(httpx.ReadTimeout):
            complete(client, "a")
        wait_until(lambda: running.num_requests == 0, "the server has noticed")
        made.machine.newest("a").may_start.set()
        with httpx.Client(base_url=running.url, timeout=30) as client:
            wait_until(lambda: states(client)["a"] == "loaded", "it is loaded all the same")
        assert made.models.view("a").num_uses == 0
