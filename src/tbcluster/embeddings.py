"""Embeddings of texts: what the synchronous and the asynchronous API and the server share."""

import asyncio
import queue
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from functools import partial
from math import inf
from typing import cast

import numpy as np
import numpy.typing as npt

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.streams import PATIENT, Patience, astream
from tbcluster.core import Output, Pooling, Request, TokenId
from tbcluster.errors import RequestError, TbclusterError
from tbcluster.generation import encode_prompt

Vector = npt.NDArray[np.float32]
Text = str | Sequence[TokenId]

# Of one caller; more would only take places in the queue from others.
MAX_AT_ONCE = 64


def embedding_requests(
    cluster: Cluster, texts: Text | Sequence[Text], pooling: Pooling | str | None = None
) -> list[Request]:
    """A request for each text, or for the only one.

    Raises:
        RequestError: There is no text, or one cannot be served.
    """
    if not texts:
        raise RequestError("there is no text to embed", "texts")
    several = [texts] if isinstance(texts, str) or isinstance(texts[0], int) else texts
    return [
        cluster.make_embedding_request(encode_prompt(cluster.tokenizer, text), pooling)
        for text in cast(Sequence[Text], several)
    ]


def finished_vector(
    output: Output, *, normalize: bool = True, dimensions: int | None = None
) -> Vector:
    """The embedding (width,) of an output.

    Args:
        normalize: Scale it to length 1 (a vector of zeros stays one).
        dimensions: Keep only the first so many numbers, before it is scaled.
    """
    vector = np.array(output.embedding, np.float32)[:dimensions]
    length = np.linalg.norm(vector.astype(np.float64))
    return (vector / length).astype(np.float32) if normalize and length > 0 else vector


def run_embeddings(cluster: Cluster, requests: Sequence[Request]) -> list[Output]:
    """The output of each request; if one fails the others are cancelled.

    Raises:
        TbclusterError: A request failed.
    """
    answers: queue.SimpleQueue[tuple[int, Output | TbclusterError]] = queue.SimpleQueue()
    outputs: dict[int, Output] = {}
    waiting = iter(enumerate(requests))
    running: dict[int, Request] = {}

    def listen(index: int, answer: Output | TbclusterError) -> None:
        answers.put((index, answer))

    def submit_next() -> None:
        for index, request in waiting:
            cluster.submit(request, partial(listen, index))
            running[index] = request
            return

    try:
        for _ in range(MAX_AT_ONCE):
            submit_next()
        while running:
            index, answer = answers.get()
            del running[index]
            if isinstance(answer, TbclusterError):
                raise answer
            outputs[index] = answer
            submit_next()
    finally:
        for request in running.values():
            cluster.cancel(request)
    return [outputs[index] for index in range(len(requests))]


async def arun_embeddings(
    cluster: Cluster, requests: Sequence[Request], patience: Patience = PATIENT
) -> list[Output]:
    """`run_embeddings` for asyncio; cancelling the task cancels what still runs.

    Args:
        patience: For each of them by itself in the queue, for all of them together until the end.

    Raises:
        OutOfTimeError: They took longer than they may.
        TbclusterError: A request failed.
    """
    outputs: dict[int, Output] = {}
    waiting = iter(enumerate(requests))
    workers = [
        asyncio.create_task(_work(cluster, waiting, outputs, patience))
        for _ in range(min(MAX_AT_ONCE, len(requests)))
    ]
    try:
        async with asyncio.timeout(patience.answer_s if patience.answer_s < inf else None):
            await asyncio.gather(*workers)
    except TimeoutError as error:
        raise patience.error(has_begun=True) from error
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [outputs[index] for index in range(len(requests))]


async def _work(
    cluster: Cluster,
    waiting: Iterator[tuple[int, Request]],
    outputs: dict[int, Output],
    patience: Patience,
) -> None:
    for index, request in waiting:
        async with aclosing(astream(cluster, request, patience)) as stream:
            outputs[index] = await anext(stream)
