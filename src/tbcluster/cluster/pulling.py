"""Fetching weights ahead, without loading them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tbcluster.checkpoint import ListedFile, Span
from tbcluster.cluster.opening import open_model
from tbcluster.cluster.plan_request import PlanRequest
from tbcluster.cluster.planning import PlannedModel, plan_viewed
from tbcluster.cluster.prepared import spans_by_node
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import FetchError
from tbcluster.model.source import find_model
from tbcluster.weights.checking import hash_of
from tbcluster.weights.hf_cache import drop
from tbcluster.weights.library import ModelSource, open_model_source
from tbcluster.weights.store import Store

if TYPE_CHECKING:
    # One machine alone needs none of it, and it takes its time to import.
    from tbcluster.cluster.rack.fetching import FetchStatus
    from tbcluster.cluster.rack.rack import Rack

OnFetch = Callable[[Sequence["FetchStatus"]], None]
OnPlan = Callable[[PlannedModel], None]


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of a model on this machine.

    Attributes:
        num_bytes: Hashed, in all: 0 where no hashes are known, as of a folder.
        bad: Files that are not what the hub has.
    """

    source: ModelSource
    num_bytes: int
    bad: tuple[ListedFile, ...]


def pull_planned(
    rack: "Rack", request: PlanRequest, on_plan: OnPlan, on_fetch: OnFetch, *, verifies: bool
) -> None:
    """Fetch onto each node what it needs for a plan, once all nodes are there.

    Args:
        verifies: Whether what the nodes hold is read and hashed first.

    Raises:
        TbclusterError: The model cannot be used, placed or fetched.
    """
    opened = open_model(request.model, request.kv_bits, is_on_rack=True)
    rack.await_nodes(sorted({node for stages in request.by_hand for node, _ in stages}))
    speeds = rack.speeds(opened.profile.speed_kind)
    planned = plan_viewed(request, opened, rack.view(), speeds)
    on_plan(planned)
    if opened.weights is not None:
        needs = spans_by_node(opened, planned.plan)
        rack.fetch(opened.weights, needs, on_fetch, verifies=verifies)


def pull_everywhere(rack: "Rack", model: str, on_fetch: OnFetch, *, verifies: bool) -> None:
    """Fetch all of a model onto every node.

    Raises:
        TbclusterError: The model cannot be found or fetched.
    """
    source = open_model_source(model, Store())
    spans = [Span(file.path, 0, file.size) for file in source.listing.files]
    needs = {node.name: spans for node in rack.await_nodes()}
    rack.fetch(source, needs, on_fetch, verifies=verifies)


def pull_here(model: str | None) -> Path:
    """Have all of a model on this machine, in the Hugging Face cache, with progress bars; a folder
    stays where it is.

    Raises:
        ModelError: It cannot be found or read.
    """
    return find_model(model or str(MODEL_PATH)).path


def verify_here(model: str, on_file: Callable[[str], None] = lambda _: None) -> Verified:
    """Read and hash a model's weights on this machine, and compare them with the hub's hashes.

    Args:
        on_file: Called with the name of each before it is read.

    Raises:
        FetchError: A file cannot be read, its hash cannot be asked for, or not all of the model is
            here.
    """
    source = open_model_source(model, Store())
    if not source.is_whole:
        raise FetchError(
            f"not all of {model} is on this machine, so that it cannot be verified: "
            f"`tbcluster pull {model} --local` fetches what is missing"
        )
    # Of small files a listing may have been made from the very files.
    known = [file for file in source.listing.files if file.sha256 and file.holds_weights]
    bad = []
    for file in known:
        on_file(file.path)
        if not _is_good(source, file):
            bad.append(file)
    return Verified(source, sum(file.size for file in known), tuple(bad))


def fetch_anew(model: str, verified: Verified) -> None:
    """Fetch the files again that were found to be bad, into the Hugging Face cache, with progress
    bars.

    Raises:
        FetchError: One lies elsewhere, cannot be removed, or is bad again.
        ModelError: They cannot be fetched.
    """
    source = verified.source
    for file in verified.bad:
        content = (source.folder / file.path).resolve()
        wrong = f"{content} is not what the hub has: its SHA-256 should be {file.sha256}"
        try:
            is_gone = drop(source.listing.model, source.listing.revision, file.path)
        except OSError as error:
            raise FetchError(f"{wrong}, and it cannot be removed: {error.strerror}") from error
        if not is_gone:
            raise FetchError(f"{wrong}; remove it and pull again")
    pull_here(model)
    for file in verified.bad:
        if not _is_good(source, file):
            raise FetchError(
                f"{(source.folder / file.path).resolve()} was fetched anew and again is not what "
                "the hub says it is: see whether this machine's disk, or a mirror in HF_ENDPOINT, "
                "damages files"
            )


def _is_good(source: ModelSource, file: ListedFile) -> bool:
    path = source.folder / file.path
    try:
        return hash_of(path) == file.sha256
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}") from error
