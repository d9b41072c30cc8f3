"""Distributed LLM inference for a rack of Macs.

    import tbcluster

    model, tokenizer = tbcluster.load("path/or/id", stages=2)
    with model:
        print(tbcluster.generate(model, tokenizer, "The capital of France is", max_tokens=20))

`tbcluster.aio` holds the same for asyncio; `Cluster` gives control over the stages, `Rack` has the
nodes of a cluster whose head this machine is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tbcluster.api import embed, generate, load, stream_generate
    from tbcluster.cluster.cluster import Cluster
    from tbcluster.cluster.kv_options import KvOptions
    from tbcluster.cluster.layout import PlacedRange
    from tbcluster.cluster.rack.rack import Rack
    from tbcluster.cluster.status import ClusterState, ClusterStatus
    from tbcluster.generation import GenerationResponse
    from tbcluster.planner.plan import Plan, Wishes

__version__ = "0.1.0"

__all__ = [
    "Cluster",
    "ClusterState",
    "ClusterStatus",
    "GenerationResponse",
    "KvOptions",
    "PlacedRange",
    "Plan",
    "Rack",
    "Wishes",
    "__version__",
    "embed",
    "generate",
    "load",
    "stream_generate",
]

# Imported when first asked for: the command line and the stage workers need only parts of it all,
# and MLX with its tokenizers takes a second.
_HOMES = {
    "Cluster": "tbcluster.cluster.cluster",
    "ClusterState": "tbcluster.cluster.status",
    "ClusterStatus": "tbcluster.cluster.status",
    "GenerationResponse": "tbcluster.generation",
    "KvOptions": "tbcluster.cluster.kv_options",
    "PlacedRange": "tbcluster.cluster.layout",
    "Plan": "tbcluster.planner.plan",
    "Rack": "tbcluster.cluster.rack.rack",
    "Wishes": "tbcluster.planner.plan",
    "embed": "tbcluster.api",
    "generate": "tbcluster.api",
    "load": "tbcluster.api",
    "stream_generate": "tbcluster.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tbcluster' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
