"""What answers, metrics and /energy say of joules."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.energy.this_machine import ThisMachine
from tbcluster.cluster.energy.watch import EnergyWatch
from tbcluster.cluster.opening import THIS_MACHINE
from tbcluster.core import FinishReason, Output, SampledToken
from tbcluster.hardware.gauges import GaugeReader
from tbcluster.hardware.power.meter import Reading
from tbcluster.machine import Machine
from tbcluster.server.deltas import Usage
from tbcluster.server.energy import usage_energy
from tbcluster.server.metrics import Metrics
from tests.doubles.local_server import LocalServer
from tests.doubles.waiting import wait_until
from tests.server.test_metrics import MODEL, samples

BODY = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 8}


class Mains:
    """A meter whose machine draws 100 joules each time that it is asked."""

    source = "rapl"

    def __init__(self) -> None:
        self.joules = 0.0

    def read(self) -> Reading:
        self.joules += 100.0
        return Reading(self.joules, 100.0)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    machine = Machine("host", "Linux", "x", "0", "3")
    with Cluster(stages=2) as cluster:
        serving = LocalServer(cluster)
        energy = serving.server.energy
        energy.here = ThisMachine(lambda: GaugeReader(Mains()), lambda: machine)
        energy._every_s = 0.05
        with serving as running:
            yield running


def complete(server: LocalServer) -> dict[str, object]:
    answer = httpx.post(f"{server.url}/v1/completions", json=BODY)
    assert answer.status_code == 200, answer.text
    usage: dict[str, object] = answer.json()["usage"]
    return usage


def test_an_answer_tells_what_it_took_once_that_is_known(server: LocalServer) -> None:
    wait_until(lambda: "energy" in complete(server), "a whole interval with work in it is over")
    energy = complete(server)["energy"]
    assert isinstance(energy, dict)
    assert energy["source"] == "meter"
    assert energy["joules"] > energy["joules_per_token"] > 0
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        *_, last = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hi"}],
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    assert last.usage is not None
    assert last.usage.model_extra
    assert last.usage.model_extra["energy"]["joules"] > 0


def test_other_dialects_tell_it_too(server: LocalServer) -> None:
    wait_until(lambda: "energy" in complete(server), "a whole interval with work in it is over")
    said = httpx.post(
        f"{server.url}/v1/messages",
        json={"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]},
    ).json()
    assert said["usage"]["energy"]["source"] == "meter"
    said = httpx.post(
        f"{server.url}/v1/responses",
        json={"model": MODEL, "max_output_tokens": 16, "input": "Hi", "store": False},
    ).json()
    assert said["usage"]["energy"]["source"] == "meter"


def test_costs_are_counted_by_model(server: LocalServer) -> None:
    complete(server)

    def costs() -> dict[str, object]:
        found: dict[str, object] = httpx.get(f"{server.url}/energy").json()["models"].get(MODEL, {})
        return found

    wait_until(lambda: bool(costs().get("joules")), "the request was paid for")
    body = httpx.get(f"{server.url}/energy").json()
    assert body["watts"] == 100.0
    assert body["nodes"][THIS_MACHINE]["source"] == "rapl"
    assert body["nodes"][THIS_MACHINE]["joules"] > 0
    assert body["keys"] == {}
    found = samples(httpx.get(f"{server.url}/metrics").text)
    watts = found["tbcluster_node_watts", frozenset({("node", THIS_MACHINE), ("source", "rapl")})]
    assert watts == 100.0
    assert found["tbcluster_node_joules_total", frozenset({("node", THIS_MACHINE)})] > 0
    assert found["tbcluster_request_joules_total", frozenset({("model", MODEL)})] > 0


def test_keys_are_counted_by_their_names() -> None:
    energy = EnergyWatch(dict)
    metrics = Metrics(dict, energy=energy)
    timer = metrics.begin("/x", MODEL, key="anna")
    output = Output("x", SampledToken(1), 3, 7, 0.0, 1.0, 2.0, finish_reason=FinishReason.STOP)
    timer.output(output)
    assert timer.end("ok") is None  # nothing was measured
    found = samples(metrics.exposition().decode())
    anna = frozenset({("key", "anna")})
    assert found["tbcluster_tokens_by_key_total", anna] == 7
    assert ("tbcluster_joules_by_key_total", anna) not in found


def test_nothing_is_said_where_nobody_knows() -> None:
    assert usage_energy(Usage(5, num_generated=3)) == {}
