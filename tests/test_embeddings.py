"""Embeddings through the Python API and real stages, against mlx-lm's own inner model."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import tbcluster
from tbcluster import aio
from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.streams import stream
from tbcluster.core import Output, Pooling
from tbcluster.demo import MODEL_PATH
from tbcluster.embeddings import MAX_AT_ONCE, finished_vector
from tbcluster.errors import ContextLengthError, RequestError
from tbcluster.model.device import current_device
from tbcluster.model.loading import open_model
from tests.doubles.waiting import wait_until

TEXTS = ["The capital of France is Paris.", "Paris", "One plus one is two. " * 30]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(stages=3) as running:
        yield running


@pytest.fixture(scope="module")
def unsharded(cluster: Cluster) -> list[Any]:
    """mlx-lm's hidden states (num_tokens, width) of each text."""
    model = open_model(MODEL_PATH, current_device())
    return [
        np.array(model.model(mx.array([cluster.tokenizer.encode(text)]))[0].astype(mx.float32))
        for text in TEXTS
    ]


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_equal_to_mlx_lm(cluster: Cluster, unsharded: list[Any]) -> None:
    last = np.stack([hidden[-1] for hidden in unsharded])
    mean = np.stack([hidden.mean(axis=0) for hidden in unsharded])
    for pooling, expected in (("last", last), (Pooling.MEAN, mean)):
        got = tbcluster.embed(cluster, cluster.tokenizer, TEXTS, pooling=pooling)
        assert got.dtype == np.float32
        assert np.allclose(got, unit(expected), atol=1e-4)
        raw = tbcluster.embed(cluster, cluster.tokenizer, TEXTS, pooling=pooling, normalize=False)
        assert np.allclose(raw, expected, rtol=1e-3, atol=1e-3)


def test_one_text_or_token_ids(cluster: Cluster) -> None:
    tokens = cluster.tokenizer.encode(TEXTS[0])
    expected = tbcluster.embed(cluster, cluster.tokenizer, [TEXTS[0]])
    for texts in (TEXTS[0], tokens, [tokens]):
        got = tbcluster.embed(cluster, cluster.tokenizer, texts)
        assert np.allclose(got, expected, atol=1e-5)


def test_the_asynchronous_twin(cluster: Cluster) -> None:
    expected = tbcluster.embed(cluster, cluster.tokenizer, TEXTS)
    got = asyncio.run(aio.embed(cluster, cluster.tokenizer, TEXTS))
    assert np.allclose(got, expected, atol=1e-5)


def test_many_at_once_while_streams_run(cluster: Cluster) -> None:
    """Each equals its lone run, and so do the streams beside them."""
    prompts = [[300 + number] * (5 + number) for number in range(50)]
    alone = [tbcluster.embed(cluster, cluster.tokenizer, [prompt])[0] for prompt in prompts]
    asked = {"max_tokens": 60, "temperature": 0.0}
    tokens = cluster.tokenizer.encode("Once upon a time")
    text = tbcluster.generate(cluster, cluster.tokenizer, tokens, **asked)  # type: ignore[arg-type]

    async def together() -> tuple[list[str], Any]:
        streams = [aio.generate(cluster, cluster.tokenizer, tokens, **asked) for _ in range(4)]  # type: ignore[arg-type]
        *texts, vectors = await asyncio.gather(
            *streams, aio.embed(cluster, cluster.tokenizer, prompts)
        )
        return texts, vectors

    texts, vectors = asyncio.run(together())
    assert texts == [text] * 4
    assert np.allclose(vectors, np.stack(alone), atol=1e-4)


def test_cancelling_ends_all_of_them(cluster: Cluster) -> None:
    prompts = [[number] * 1000 for number in range(1, 3 * MAX_AT_ONCE)]

    async def leave() -> None:
        task = asyncio.create_task(aio.embed(cluster, cluster.tokenizer, prompts))
        while cluster.status().num_requests < MAX_AT_ONCE // 2:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    wait_until(lambda: cluster.status().num_requests == 0, "its requests are gone")


@pytest.mark.parametrize(
    ("texts", "fields", "param"),
    [
        ([], {}, "texts"),
        ("", {}, "texts"),
        ([""], {}, "prompt"),
        (["a", [5000]], {}, "prompt"),
        (["\ud800"], {}, "prompt"),
        (["a"], {"pooling": "max"}, "pooling"),
    ],
)
def test_refused_by_name(cluster: Cluster, texts: Any, fields: Any, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        tbcluster.embed(cluster, cluster.tokenizer, texts, **fields)
    assert caught.value.param == param
    assert cluster.status().num_requests == 0


def test_the_context_is_the_limit_with_no_token_to_spare(cluster: Cluster) -> None:
    longest = [7] * 1024
    assert tbcluster.embed(cluster, cluster.tokenizer, [longest]).shape == (1, 128)
    with pytest.raises(ContextLengthError, match="1025 tokens"):
        tbcluster.embed(cluster, cluster.tokenizer, [[*longest, 7]])


def test_a_request_has_one_output(cluster: Cluster) -> None:
    request = cluster.make_embedding_request([5, 6])
    assert request.pooling is cluster.default_pooling is Pooling.LAST
    (output,) = stream(cluster, request)
    assert (output.text, output.num_prompt_tokens, output.num_generated_tokens) == ("", 2, 0)
    assert output.embedding is not None
    assert len(output.embedding) == 128


def test_a_folder_says_how_it_pools(tmp_path: Path) -> None:
    folder = shutil.copytree(MODEL_PATH, tmp_path / "embedder")
    (folder / "1_Pooling").mkdir()
    config = {"word_embedding_dimension": 128, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    with Cluster(folder, stages=1) as cluster:
        assert cluster.default_pooling is Pooling.MEAN
        assert cluster.make_embedding_request([5]).pooling is Pooling.MEAN
        assert cluster.make_embedding_request([5], "last").pooling is Pooling.LAST
        mean = tbcluster.embed(cluster, cluster.tokenizer, [[5, 6]], normalize=False)
        last = [
            tbcluster.embed(cluster, cluster.tokenizer, [t], pooling="last", normalize=False)
            for t in ([5], [5, 6])
        ]
        assert np.allclose(mean, (last[0] + last[1]) / 2, atol=1e-4)


def test_vectors_are_cut_before_they_are_scaled() -> None:
    def output(*vector: float) -> Output:
        return Output("", None, 1, 0, 0, 0, 0, embedding=vector)  # type: ignore[arg-type]

    assert finished_vector(output(3, 4, 12), dimensions=2).tolist() == pytest.approx([0.6, 0.8])
    assert finished_vector(output(3, 4, 12), dimensions=2, normalize=False).tolist() == [3, 4]
    assert finished_vector(output(0, 0)).tolist() == [0, 0]
    # Their squares are past float32.
    assert finished_vector(output(3e30, 4e30)).tolist() == pytest.approx([0.6, 0.8])
