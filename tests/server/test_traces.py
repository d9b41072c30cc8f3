"""/traces over real sockets: where the newest requests were."""

from collections.abc import Iterator

import anthropic
import httpx
import openai
import pytest

from tbcluster.cluster.cluster import Cluster
from tbcluster.tracing.trace import RequestTrace, decode_summaries, decode_trace
from tests.doubles.local_server import LocalServer
from tests.doubles.waiting import wait_until
from tests.server.test_metrics import MODEL

NUM_STAGES = 3
PROMPT = "The treasure of Zanzibar lies under the third palm. " * 12


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with Cluster(stages=NUM_STAGES) as cluster, LocalServer(cluster) as running:
        yield running


def ask(server: LocalServer, request_id: str, **fields: object) -> str:
    """Have a completion made; the id of its answer."""
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 6, "ignore_eos": True, **fields}
    headers = {"x-request-id": request_id}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=60)
    answer.raise_for_status()
    answer_id: str = answer.json()["id"]
    return answer_id


def trace(server: LocalServer, name: str) -> RequestTrace:
    """What is known of a request."""
    answer = httpx.get(f"{server.url}/traces/{name}")
    answer.raise_for_status()
    assert "Zanzibar" not in answer.text
    return decode_trace(answer.content)


def test_a_request_is_found_by_both_its_ids_and_as_the_last(server: LocalServer) -> None:
    answer_id = ask(server, "mine")
    found = trace(server, "mine")
    assert found == trace(server, answer_id) == trace(server, "last")
    assert (found.request.request_id, found.request.answer_id) == ("mine", answer_id)
    assert (found.request.model, found.request.endpoint) == (MODEL, "/v1/completions")
    assert found.request.outcome == "length"
    assert found.request.num_generated_tokens == 6


def test_every_step_is_there_and_went_through_every_stage(server: LocalServer) -> None:
    ask(server, "steps", cache_prompt=False)
    found = trace(server, "steps")
    (sequence,) = found.sequences
    assert sequence.num_lost_steps == 0
    chunks = [step for step in sequence.steps if step.kind == "prompt"]
    assert sum(step.num_tokens for step in chunks) == sequence.num_prompt_tokens - 1
    assert sum(step.kind == "decode" for step in sequence.steps) == 6
    assert [stage.node for stage in found.stages] == ["this machine"] * NUM_STAGES
    assert found.stages[-1].last_layer == 7
    for step in sequence.steps:
        assert [visit.stage for visit in step.visits] == list(range(NUM_STAGES))
        assert all(visit.compute_us > 0 for visit in step.visits)
        away_us = step.back_us - step.sent_us
        # Each of its seven parts is rounded on its own.
        parts_us = step.compute_us + step.wire_us + step.queue_us
        assert parts_us == pytest.approx(away_us, abs=8)
    assert sequence.ended_us is not None
    assert sequence.submitted_us <= sequence.steps[0].sent_us
    assert sequence.steps[-1].back_us <= sequence.ended_us


def test_several_choices_have_a_sequence_each(server: LocalServer) -> None:
    ask(server, "two", n=2, temperature=1.0)
    assert [one.index for one in trace(server, "two").sequences] == [0, 1]


def test_the_newest_come_first(server: LocalServer) -> None:
    ask(server, "older")
    ask(server, "newer")
    told = decode_summaries(httpx.get(f"{server.url}/traces?limit=2").content)
    assert [one.request_id for one in told] == ["newer", "older"]


def test_a_request_is_told_of_while_it_runs(server: LocalServer) -> None:
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 400, "ignore_eos": True, "stream": True}
    with httpx.stream(
        "POST", f"{server.url}/v1/completions", json=body, headers={"x-request-id": "long"}
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert trace(server, "long").request.outcome == "running"
    wait_until(
        lambda: trace(server, "long").request.outcome == "cancelled", "it ends with its client"
    )


def test_other_dialects_are_traced_too(server: LocalServer) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        response = client.responses.create(model=MODEL, input="Hi", max_output_tokens=16)
    assert trace(server, response.id).request.endpoint == "/v1/responses"
    with anthropic.Anthropic(base_url=server.url, api_key="none") as client:
        message = client.messages.create(
            model=MODEL, max_tokens=8, messages=[{"role": "user", "content": "Hi"}]
        )
    assert trace(server, message.id).request.endpoint == "/v1/messages"


def test_unknown_requests_are_named(server: LocalServer) -> None:
    answer = httpx.get(f"{server.url}/traces/nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "trace_not_found"
    assert "'nothing'" in answer.json()["error"]["message"]
