"""The asynchronous twin of the Python API: the same names, awaited."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.layout import PlacedRange
from tbcluster.cluster.streams import astream
from tbcluster.core import Pooling, TokenId
from tbcluster.embeddings import Text, arun_embeddings, embedding_requests, finished_vector
from tbcluster.generation import (
    GenerateOptions,
    GenerationResponse,
    build_request,
    patience_of,
    to_response,
)
from tbcluster.planner.plan import Wishes

if TYPE_CHECKING:
    from tbcluster.cluster.rack.rack import Rack


async def load(
    path_or_id: str | Path | None = None,
    *,
    stages: int | None = None,
    kv: KvOptions | None = None,
    rack: "Rack | None" = None,
    placed: Sequence[PlacedRange] = (),
    wishes: Wishes | None = None,
) -> tuple[Cluster, Any]:
    """`tbcluster.load` without blocking the event loop; cancelling it ends what was started."""
    cluster = Cluster(path_or_id, stages=stages, kv=kv, rack=rack, placed=placed, wishes=wishes)
    try:
        await asyncio.to_thread(cluster.start)
    except asyncio.CancelledError:
        # Not awaited through a thread: whoever cancels may be closing the event loop itself.
        cluster.close()
        raise
    return cluster, cluster.tokenizer


async def stream_generate(
    model: Cluster,
    tokenizer: Any,
    prompt: str | Sequence[TokenId],
    **options: Unpack[GenerateOptions],
) -> AsyncIterator[GenerationResponse]:
    """`tbcluster.stream_generate` as an async iterator; cancelling the task ends the generation."""
    patience = patience_of(options)
    request = build_request(model, prompt, options)
    async with aclosing(astream(model, request, patience)) as outputs:
        async for output in outputs:
            yield to_response(model, request, output)


async def embed(
    model: Cluster,
    tokenizer: Any,
    texts: Text | Sequence[Text],
    *,
    pooling: Pooling | str | None = None,
    normalize: bool = True,
) -> npt.NDArray[np.float32]:
    """`tbcluster.embed`; cancelling the task cancels what still runs."""
    requests = await asyncio.to_thread(embedding_requests, model, texts, pooling)
    outputs = await arun_embeddings(model, requests)
    return np.stack([finished_vector(output, normalize=normalize) for output in outputs])


async def generate(
    model: Cluster,
    tokenizer: Any,
    prompt: str | Sequence[TokenId],
    **options: Unpack[GenerateOptions],
) -> str:
    """The whole answer."""
    parts = [item.text async for item in stream_generate(model, tokenizer, prompt, **options)]
    return "".join(parts)
