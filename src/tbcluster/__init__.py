"""Distributed LLM inference for a rack of Macs.

    import tbcluster

    model, tokenizer = tbcluster.load("path/or/id", stages=2)
    with model:
        print(tbcluster.generate(model, tokenizer, "The capital of France is", max_tokens=20))

`tbcluster.aio` holds the same for asyncio; `Cluster` gives control over the stages.
"""

from tbcluster.api import generate, load, stream_generate
from tbcluster.cluster.cluster import Cluster, ClusterState, ClusterStatus
from tbcluster.generation import GenerationResponse

__version__ = "0.1.0"

__all__ = [
    "Cluster",
    "ClusterState",
    "ClusterStatus",
    "GenerationResponse",
    "__version__",
    "generate",
    "load",
    "stream_generate",
]
