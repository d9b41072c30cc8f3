"""The Python API beside mlx-lm's, and its asynchronous twin."""

import asyncio
import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

import pytest

import tbcluster
from tbcluster import aio
from tbcluster.cluster.cluster import Cluster
from tbcluster.errors import OutOfTimeError, PlanError, RequestError
from tests.doubles.checkpoints import write_endless_llama
from tests.doubles.processes import worker_pids
from tests.doubles.waiting import wait_until

PROMPT = [300, 301, 302]


@pytest.fixture
def cluster(demo_cluster: Cluster) -> Cluster:
    return demo_cluster


def test_responses_have_mlx_lm_fields(cluster: Cluster) -> None:
    module = importlib.import_module("mlx_lm.generate")
    theirs = {f.name for f in dataclasses.fields(module.GenerationResponse)}
    ours = {f.name for f in dataclasses.fields(tbcluster.GenerationResponse)}
    assert ours == theirs | {"cached_tokens"}


def test_stream_counts_and_ends(cluster: Cluster) -> None:
    got = list(tbcluster.stream_generate(cluster, cluster.tokenizer, PROMPT, max_tokens=5))
    assert [r.generation_tokens for r in got] == list(range(1, len(got) + 1))
    assert {r.prompt_tokens for r in got} == {3}
    assert [r.finish_reason for r in got[:-1]] == [None] * (len(got) - 1)
    assert got[-1].finish_reason in ("stop", "length")
    assert got[-1].prompt_tps > 0
    assert got[-1].peak_memory > 0


def test_text_is_the_detokenized_tokens(cluster: Cluster) -> None:
    got = list(tbcluster.stream_generate(cluster, cluster.tokenizer, PROMPT, max_tokens=12))
    tokens = [r.token for r in got if r.finish_reason != "stop"]
    detokenizer = cluster.tokenizer.detokenizer
    for token in tokens:
        detokenizer.add_token(token)
    detokenizer.finalize()
    assert "".join(r.text for r in got) == detokenizer.text


def test_prompts_may_be_text(cluster: Cluster) -> None:
    tokens = cluster.tokenizer.encode("The capital of")
    from_text = tbcluster.generate(cluster, cluster.tokenizer, "The capital of", max_tokens=5)
    assert from_text == tbcluster.generate(cluster, cluster.tokenizer, tokens, max_tokens=5)


def test_logprobs_come_when_asked_for(cluster: Cluster) -> None:
    stream = tbcluster.stream_generate(
        cluster, cluster.tokenizer, PROMPT, max_tokens=1, num_logprobs=3
    )
    logprobs = next(stream).logprobs
    assert logprobs is not None
    assert len(logprobs.top) == 3
    assert logprobs.top[0] == (logprobs.token, logprobs.logprob)
    plain = next(tbcluster.stream_generate(cluster, cluster.tokenizer, PROMPT, max_tokens=1))
    assert plain.logprobs is None


@pytest.mark.parametrize("timeout_s", [0, -1, True, "5", float("nan")])
def test_what_is_no_time_is_refused(cluster: Cluster, timeout_s: Any) -> None:
    with pytest.raises(RequestError, match="timeout_s"):
        tbcluster.generate(cluster, cluster.tokenizer, PROMPT, timeout_s=timeout_s)


def test_an_answer_has_to_come_in_time(cluster: Cluster) -> None:
    options: Any = {"max_tokens": 5, "timeout_s": 1e-6}
    with pytest.raises(OutOfTimeError):
        tbcluster.generate(cluster, cluster.tokenizer, PROMPT, **options)
    with pytest.raises(OutOfTimeError):
        asyncio.run(aio.generate(cluster, cluster.tokenizer, PROMPT, **options))
    wait_until(lambda: cluster.status().num_requests == 0, "both have ended")
    options["timeout_s"] = 60
    assert tbcluster.generate(cluster, cluster.tokenizer, PROMPT, **options)


def test_a_known_prompt_is_not_computed_again(cluster: Cluster) -> None:
    prompt = list(range(400, 500))

    def ask(**options: Any) -> tuple[list[int], set[int]]:
        stream = tbcluster.stream_generate(
            cluster, cluster.tokenizer, prompt, max_tokens=5, **options
        )
        got = list(stream)
        return [r.token for r in got], {r.cached_tokens for r in got}

    tokens, cached = ask()
    assert cached == {0}
    assert ask() == (tokens, {len(prompt) - 1})
    assert ask(cache_prompt=False) == (tokens, {0})


def test_verbose_prints_the_answer_and_the_speeds(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tbcluster.generate(cluster, cluster.tokenizer, PROMPT, max_tokens=4, verbose=True)
    printed = capsys.readouterr().out
    assert printed.startswith(text)
    assert "Generation: 4 tokens" in printed


def test_the_async_twin_gives_the_same(cluster: Cluster) -> None:
    async def several() -> list[str]:
        one = aio.generate(cluster, cluster.tokenizer, PROMPT, max_tokens=8)
        two = aio.generate(cluster, cluster.tokenizer, PROMPT[:1], max_tokens=8)
        return list(await asyncio.gather(one, two))

    assert asyncio.run(several()) == [
        tbcluster.generate(cluster, cluster.tokenizer, prompt, max_tokens=8)
        for prompt in (PROMPT, PROMPT[:1])
    ]


def test_cancelling_an_async_generation_ends_it(tmp_path: Path) -> None:
    async def leave_early(cluster: Cluster) -> None:
        stream = aio.stream_generate(cluster, cluster.tokenizer, [5], max_tokens=10**9)
        async for _ in stream:
            break

    with Cluster(write_endless_llama(tmp_path / "model"), stages=1) as cluster:
        asyncio.run(leave_early(cluster))
        wait_until(lambda: cluster.status().num_requests == 0, "the request is cancelled")


def test_cancelling_an_async_load_leaves_nothing() -> None:
    async def give_up() -> None:
        await asyncio.wait_for(aio.load(stages=2), 1.0)

    before = set(worker_pids(os.getpid()))
    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    wait_until(lambda: set(worker_pids(os.getpid())) <= before, "the workers are gone")


def test_aio_load() -> None:
    async def answer() -> str:
        model, tokenizer = await aio.load(stages=1)
        with model:
            return await aio.generate(model, tokenizer, PROMPT, max_tokens=3)

    assert asyncio.run(answer())


def test_kv_options_are_the_callers() -> None:
    too_little = tbcluster.KvOptions(memory_bytes=1000)
    with pytest.raises(PlanError, match="--kv-memory"):
        tbcluster.load(stages=1, kv=too_little)
    with pytest.raises(PlanError, match="--kv-memory"):
        asyncio.run(aio.load(stages=1, kv=too_little))
