"""The synchronous Python API (see `tbcluster.aio` for its twin)."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.layout import PlacedRange
from tbcluster.cluster.streams import stream
from tbcluster.core import Pooling, TokenId
from tbcluster.embeddings import Text, embedding_requests, finished_vector, run_embeddings
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


def load(
    path_or_id: str | Path | None = None,
    *,
    stages: int | None = None,
    kv: KvOptions | None = None,
    rack: "Rack | None" = None,
    placed: Sequence[PlacedRange] = (),
    wishes: Wishes | None = None,
) -> tuple[Cluster, Any]:
    """Load a model cut into stages.

    Args:
        path_or_id: A folder, a Hugging Face id, or None for the bundled model.
        stages: How many stage processes in each replica, of which there then is one unless more are
            wished for; None for two, or on a rack for the best number of both.
        kv: How the KV caches are kept: memory, bits, prefix cache.
        rack: The nodes to run on, a running `tbcluster.Rack`; None for this machine alone.
        placed: Which node runs which layers; empty for the best plan.
        wishes: Context and streams that are promised, and how many replicas there are.

    Returns:
        The running cluster, which is also a context manager (leaving it, or the interpreter's exit,
        ends all processes), and mlx-lm's tokenizer.

    Raises:
        ModelError, FetchError, PlanError, StageError, RackError: See `Cluster`.
    """
    cluster = Cluster(
        path_or_id, stages=stages, kv=kv, rack=rack, placed=placed, wishes=wishes
    ).start()
    return cluster, cluster.tokenizer


def stream_generate(
    model: Cluster,
    tokenizer: Any,
    prompt: str | Sequence[TokenId],
    **options: Unpack[GenerateOptions],
) -> Iterator[GenerationResponse]:
    """Generate, token by token; leaving the iterator ends the generation.

    Args:
        tokenizer: As returned by `load`; here for likeness with mlx-lm, the cluster holds its own.
        prompt: Text or token ids.
        options: See `GenerateOptions`.

    Raises:
        RequestError: The prompt or an option is out of range.
        OutOfTimeError: It took longer than `timeout_s`.
        StageError: A stage failed or was lost.
    """
    patience = patience_of(options)
    request = build_request(model, prompt, options)
    for output in stream(model, request, patience):
        yield to_response(model, request, output)


def embed(
    model: Cluster,
    tokenizer: Any,
    texts: Text | Sequence[Text],
    *,
    pooling: Pooling | str | None = None,
    normalize: bool = True,
) -> npt.NDArray[np.float32]:
    """Embeddings of texts, or of one.

    Args:
        tokenizer: As returned by `load`; the cluster holds its own.
        texts: Texts, or token ids in their place.
        pooling: "last" or "mean"; None for the model's own way.
        normalize: Scale each to length 1.

    Returns:
        (number of texts, width), float32.

    Raises:
        RequestError: A text cannot be served, or the model gives no embeddings.
        StageError: A stage failed or was lost.
    """
    outputs = run_embeddings(model, embedding_requests(model, texts, pooling))
    return np.stack([finished_vector(output, normalize=normalize) for output in outputs])


def generate(
    model: Cluster,
    tokenizer: Any,
    prompt: str | Sequence[TokenId],
    *,
    verbose: bool = False,
    **options: Unpack[GenerateOptions],
) -> str:
    """The whole answer. With `verbose` it is also printed as it comes, with the speeds."""
    text = ""
    response = None
    for response in stream_generate(model, tokenizer, prompt, **options):
        text += response.text
        if verbose:
            sys.stdout.write(response.text)
            sys.stdout.flush()
    if verbose and response is not None:
        sys.stdout.write(
            f"\nPrompt: {response.prompt_tokens} tokens, {response.prompt_tps:.3f} tokens-per-sec\n"
            f"Generation: {response.generation_tokens} tokens, "
            f"{response.generation_tps:.3f} tokens-per-sec\n"
            f"Peak memory: {response.peak_memory:.3f} GB\n"
        )
    return text
