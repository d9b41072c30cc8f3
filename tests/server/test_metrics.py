"""What Prometheus sees."""

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tbcluster.cluster.cluster import Cluster
from tbcluster.core import FinishReason, Output, SampledToken
from tbcluster.server.cluster_metrics import Monotonic
from tbcluster.server.metrics import Metrics
from tests.doubles.local_server import LocalServer
from tests.doubles.waiting import wait_until

MODEL = "tbcluster-demo"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(stages=2) as running:
        yield running


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[LocalServer]:
    with LocalServer(cluster) as running:
        yield running


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(server: LocalServer) -> Samples:
    answer = httpx.get(f"{server.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(answer.text)


def value(found: Samples, name: str, **labels: str) -> float:
    named = labels if "reason" in labels else {"model": MODEL, **labels}
    return found.get((f"tbcluster_{name}", frozenset(named.items())), 0.0)


def counters(found: Samples) -> Samples:
    return {key: count for key, count in found.items() if key[0].endswith("_total")}


def test_requests_and_tokens_are_counted(server: LocalServer) -> None:
    before = scrape(server)
    body = {"model": MODEL, "prompt": "The capital of France is a city. " * 12, "max_tokens": 8}
    endpoint = {"endpoint": "/v1/completions"}
    for stream in (False, True):
        answer = httpx.post(f"{server.url}/v1/completions", json={**body, "stream": stream})
        assert answer.status_code == 200
    after = scrape(server)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("requests_total", outcome="ok", **endpoint) == 2
    assert grown("time_to_first_token_seconds_count", **endpoint) == 2
    assert grown("request_duration_seconds_count", **endpoint) == 2
    generated = grown("generated_tokens_total")
    assert 2 <= generated <= 16
    assert grown("time_per_output_token_seconds_count", **endpoint) == generated - 2
    assert grown("prompt_tokens_total") > 0
    assert grown("cached_prompt_tokens_total") > 0  # the second time
    assert grown("steps_total") > 0
    assert grown("round_trip_seconds_total") > grown("wire_seconds_total") >= 0
    for stage in ("0", "1"):
        assert grown("stage_compute_seconds_total", stage=stage) > 0
        assert 0 <= value(after, "stage_idle_share", stage=stage) <= 1
        assert value(after, "kv_budget_bytes", stage=stage) > 0
    assert value(after, "sequences_running") == value(after, "sequences_waiting") == 0


def test_refusals_are_counted_by_their_reason(server: LocalServer) -> None:
    before = scrape(server)
    url = f"{server.url}/v1/completions"
    httpx.get(f"{server.url}/nothing")
    httpx.post(url, content=b"{", headers={"Content-Type": "application/json"})
    httpx.post(url, json={"model": "other", "prompt": "x"})
    after = scrape(server)
    for reason in ("404", "invalid_json", "model_not_found"):
        labels = {"reason": reason}
        name = "rejected_total"
        assert value(after, name, **labels) == value(before, name, **labels) + 1


def test_counters_go_on_after_the_engine_began_anew(cluster: Cluster) -> None:
    metrics = Metrics(lambda: {MODEL: cluster})
    before = samples(metrics.exposition().decode())
    assert value(before, "steps_total") > 0
    cluster.reset_statistics()
    wait_until(lambda: cluster.statistics().num_steps == 0, "it counts from zero")
    after = samples(metrics.exposition().decode())
    assert counters(after) == counters(before)


@given(st.lists(st.lists(st.integers(0, 100), min_size=1), max_size=10))
def test_a_counter_never_falls(runs: list[list[int]]) -> None:
    counter = Monotonic()
    shown = [counter.at_least(n) for run in runs for n in sorted(run)]
    assert shown == sorted(shown)


def output(number: int, at: float, *, is_last: bool = False) -> Output:
    return Output(
        text="x",
        sampled=SampledToken(1),
        num_prompt_tokens=3,
        num_generated_tokens=number,
        started_at=0.0,
        first_token_at=1.0,
        emitted_at=at,
        finish_reason=FinishReason.STOP if is_last else None,
    )


def test_a_request_is_timed_from_its_arrival(cluster: Cluster) -> None:
    metrics = Metrics(lambda: {MODEL: cluster}, clock=lambda: 10.0)
    timer = metrics.begin("/x", MODEL, 4.0)
    timer.output(output(1, 10.0, is_last=True))
    timer.end("ok")
    after = samples(metrics.exposition().decode())
    for name in ("time_to_first_token_seconds_sum", "request_duration_seconds_sum"):
        assert value(after, name, endpoint="/x") == 6.0


def test_gaps_are_those_of_each_choice(cluster: Cluster) -> None:
    now = 10.0
    metrics = Metrics(lambda: {MODEL: cluster}, clock=lambda: now)
    timer = metrics.begin("/x", MODEL)
    now = 12.0
    for choice in (0, 1):
        timer.output(output(1, 12.0 + choice), choice)
    timer.output(output(2, 12.5), 0)
    timer.output(output(4, 15.0, is_last=True), 1)  # two tokens since
    now = 20.0
    timer.end("error")
    timer.end("ok")
    found = samples(metrics.exposition().decode())
    on = {"endpoint": "/x"}
    assert value(found, "time_to_first_token_seconds_sum", **on) == 2.0
    assert value(found, "time_to_first_token_seconds_count", **on) == 1
    assert value(found, "time_per_output_token_seconds_count", **on) == 2
    assert value(found, "time_per_output_token_seconds_sum", **on) == 0.5 + 2.0 / 3
    assert value(found, "request_duration_seconds_sum", **on) == 10.0
    assert value(found, "requests_total", outcome="error", **on) == 1
    assert value(found, "requests_total", outcome="ok", **on) == 0


def test_the_metrics_page_does_not_list_what_belongs_to_others(server: LocalServer) -> None:
    assert all(name.startswith("tbcluster_") for name, _ in scrape(server))
