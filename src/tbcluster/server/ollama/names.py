"""Whether a request's model, and the context it asks for, are what is served."""

from tbcluster.cluster.cluster import Cluster
from tbcluster.errors import RequestError, UnknownModelError
from tbcluster.server.ollama.schemas import ModelOptions

# What Ollama calls a model whose tag was left out.
DEFAULT_TAG = ":latest"


def check_served(cluster: Cluster, name: str) -> None:
    """Raises: UnknownModelError when the model is not the one that is served."""
    if name not in (cluster.model_name, cluster.model_name + DEFAULT_TAG):
        raise UnknownModelError(name, cluster.model_name)


def check_room(cluster: Cluster, options: ModelOptions | None) -> None:
    """Raises: RequestError when more context is asked for than there is."""
    wanted, longest = options.num_ctx if options else None, cluster.longest_sequence
    if wanted is not None and longest is not None and wanted > longest:
        raise RequestError(
            f"num_ctx is {wanted}, prompt and answer may have {longest} tokens here: ask for no "
            "more, or leave it out",
            "num_ctx",
        )
