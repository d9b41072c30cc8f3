"""`/live` of a real server, over real sockets."""

from collections.abc import Iterator

import httpx
import pytest

from tbcluster.cluster.cluster import Cluster
from tbcluster.server.live.view import LiveView, decode_view
from tbcluster.server.options import ServerOptions
from tests.doubles.local_server import LocalServer
from tests.doubles.waiting import wait_until


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(stages=2) as made:
        yield made


def events(url: str) -> Iterator[LiveView]:
    """What the stream at an address says, as it comes."""
    with httpx.stream("GET", f"{url}/live", timeout=20) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield decode_view(line.removeprefix("data: "))


def generate(url: str, num_tokens: int) -> None:
    """Have so many tokens made."""
    body = {"model": "tbcluster-demo", "prompt": "a", "max_tokens": num_tokens, "ignore_eos": True}
    httpx.post(f"{url}/v1/completions", json=body, timeout=30).raise_for_status()


def test_the_stream_shows_what_the_model_does(cluster: Cluster) -> None:
    with LocalServer(cluster) as server:
        views = events(server.url)
        first = next(views)
        (model,) = first.models
        assert (first.state, first.default_model, model.state) == (
            "ok",
            "tbcluster-demo",
            "ready",
        )
        assert [stage.state for stage in model.stages] == ["ready", "ready"]
        assert all(stage.weight_bytes > 10**6 for stage in model.stages)
        assert first.nodes[0].weight_bytes == sum(stage.weight_bytes for stage in model.stages)
        generate(server.url, 200)
        seen = next(view for view in views if view.tokens_per_s > 0)
        assert seen.models[0].stages[1].compute_ms is not None
        assert seen.models[0].stages[1].load > 0
        assert seen.nodes[0].load == max(stage.load for stage in seen.models[0].stages)


def test_one_view_is_plain_json(cluster: Cluster) -> None:
    with LocalServer(cluster) as server:

        def once() -> LiveView | None:
            answer = httpx.get(f"{server.url}/live?once=true", timeout=20)
            # Until something was looked at.
            return decode_view(answer.content) if answer.status_code != 503 else None

        wait_until(lambda: once() is not None, "a view is there")
        view = once()
        assert view is not None
        wait_until(lambda: (later := once()) is not None and later.at > view.at, "it goes on")


def test_it_is_there_while_the_model_is_not(cluster: Cluster) -> None:
    with LocalServer(cluster, is_open=False) as server:
        assert next(events(server.url)).state == "starting"


def test_an_end_does_not_wait_for_who_looks_on(cluster: Cluster) -> None:
    with LocalServer(cluster, ServerOptions(drain_s=60)) as server:
        views = events(server.url)
        next(views)
        server.server.should_exit = True
        # The stream ends by itself, and so does the server.
        for _ in views:
            pass
        wait_until(lambda: not server.is_running, "the server has ended")
        assert server.notes == []
