"""Which model a request means, how long that stays, and whether it has the context asked for."""

from fastapi import Request as HttpRequest

from tbcluster.cluster.cluster import Cluster
from tbcluster.errors import RequestError
from tbcluster.server.desk import Desk
from tbcluster.server.intake import Intake
from tbcluster.server.ollama.schemas import ModelOptions

# What Ollama calls a model whose tag was left out.
DEFAULT_TAG = ":latest"


async def intake_of(
    desk: Desk,
    http: HttpRequest,
    name: str,
    options: ModelOptions | None,
    keep_alive_s: float | None,
) -> Intake:
    """The intake of a model, which may be named with Ollama's default tag.

    Args:
        keep_alive_s: How long the model is to stay once it is idle; only where requests load
            models, since another's request could not bring it back otherwise.

    Raises:
        RequestError: More context is asked for than there is, or see `Desk.intake`.
    """
    intake = await desk.intake(http, plain(name))
    if keep_alive_s is not None and desk.models.rules.loads_on_use:
        http.state.uses[-1].keep(keep_alive_s)
    check_room(intake.cluster, options)
    return intake


def plain(name: str) -> str:
    """A model's name without the default tag."""
    return name.removesuffix(DEFAULT_TAG)


def check_room(cluster: Cluster, options: ModelOptions | None) -> None:
    """Raises: RequestError when more context is asked for than there is."""
    wanted, longest = options.num_ctx if options else None, cluster.longest_sequence
    if wanted is not None and longest is not None and wanted > longest:
        raise RequestError(
            f"num_ctx is {wanted}, prompt and answer may have {longest} tokens here: ask for no "
            "more, or leave it out",
            "num_ctx",
        )
