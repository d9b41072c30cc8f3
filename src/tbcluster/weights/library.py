"""From what the user named to a model whose files are known, though not all need be here."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tbcluster.checkpoint import Listing, num_bytes
from tbcluster.errors import FetchError, ModelNotFoundError
from tbcluster.weights.copying import Sources
from tbcluster.weights.fetching import fetch
from tbcluster.weights.header_fetching import fetch_headers
from tbcluster.weights.hf_cache import holds_all, snapshot, whole_models
from tbcluster.weights.hub import Hub
from tbcluster.weights.listing import list_folder, with_headers, without_headers
from tbcluster.weights.store import Store, read_header
from tbcluster.wire.errands import FetchPart, FetchSpec

_REPOSITORY_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that can be planned for.

    Attributes:
        folder: Config, tokenizer and the headers of all weight files can be read there.
        is_whole: Whether the weights can be, too; else they are holes.
    """

    listing: Listing
    folder: Path
    is_whole: bool


@dataclass(frozen=True, slots=True)
class HeldModel:
    """A model of which something is on this machine.

    Attributes:
        folder: It can be loaded from there, if it is whole.
        held_bytes: Of its `listing.total_bytes`.
    """

    listing: Listing
    folder: Path
    held_bytes: int

    @property
    def is_whole(self) -> bool:
        """Whether all of it is."""
        return self.held_bytes == self.listing.total_bytes


def open_model_source(
    name: str, store: Store | None = None, hub: str = "", *, revision: str = ""
) -> ModelSource:
    """A folder, or a Hugging Face id: of one that is not whole in the Hugging Face cache config,
    tokenizer and headers are fetched, a few MB at most.

    Args:
        store: Where they go; None for this node's own.
        hub: Endpoint; empty for the one of this machine's settings.
        revision: A commit: if what can be planned with is here, the hub is not asked.

    Raises:
        ModelNotFoundError: There is no such folder or repository.
        CorruptModelError: The folder's files cannot be read.
        FetchError: The hub cannot be reached or does not let this machine in.
    """
    folder = Path(os.path.expanduser(name))  # it leaves an unknown ~user as it is
    if _exists(folder):
        if not folder.is_dir():
            raise ModelNotFoundError(f"{folder} is a file: name the folder that holds config.json")
        return ModelSource(list_folder(folder.absolute()), folder.absolute(), True)
    if name.startswith((".", "/", "~")) or not _REPOSITORY_ID.fullmatch(name):
        raise ModelNotFoundError(
            f"no folder {name!r}, and it is no Hugging Face id of the form owner/name"
        )
    store = store or Store()
    known = _at(name, revision, store) if revision else None
    return known or _open_repository(name, store, Hub(hub))


def held_models(store: Store) -> list[HeldModel]:
    """Models of which something is here: in the store, then whole ones in the Hugging Face
    cache."""
    found = []
    for revision in store.revisions():
        listing = revision.listing()
        if listing is not None:
            revision.ledger.refresh()
            held = sum(num_bytes(revision.spans(file)) for file in listing.files)
            found.append(HeldModel(listing, revision.path, held))
    known = {(held.listing.model, held.listing.revision) for held in found if held.is_whole}
    for listing, folder in whole_models():
        if (listing.model, listing.revision) not in known:
            found.append(HeldModel(listing, folder, listing.total_bytes))
    return found


def _open_repository(name: str, store: Store, hub: Hub) -> ModelSource:
    try:
        listing = hub.listing(name)
    except FetchError:
        known = _in_cache(name) or _kept(name, store)
        if known is None:
            raise
        return known
    if holds_all(listing):
        folder = snapshot(name, listing.revision)
        listed = with_headers(listing, lambda file: read_header(folder / file.path, file))
        return ModelSource(listed, folder, True)
    return _skeleton(listing, store, hub)


def _skeleton(listing: Listing, store: Store, hub: Hub) -> ModelSource:
    """The small files and the headers, in the store."""
    kept = store.revision(listing.model, listing.revision).listing()
    headers: dict[str, bytes] = {}
    if kept is not None and without_headers(kept) == listing:
        listing = kept
    else:
        weights = [file for file in listing.files if file.holds_weights]
        headers = fetch_headers(Sources(listing, hub), weights, {})
        listing = with_headers(listing, lambda file: headers[file.path])
    spec = FetchSpec(listing, (FetchPart(()),), hub=hub.endpoint, store=str(store.path))
    return _opened(listing, Path(fetch(spec, headers=headers).folder), store)


def _at(name: str, revision: str, store: Store) -> ModelSource | None:
    """This commit of a model, as far as it is here."""
    kept = _kept(name, store, revision)
    if kept is not None:
        return kept
    found = _in_cache(name)
    return found if found is not None and found.listing.revision == revision else None


def _kept(name: str, store: Store, only: str | None = None) -> ModelSource | None:
    """The newest in the store, or this commit, of which all small files and headers are here:
    without the hub that is enough to plan with."""
    for revision in store.revisions():
        listing = revision.listing()
        if listing is None or listing.source != name:
            continue
        if only is not None and listing.revision != only:
            continue
        spec = FetchSpec(listing, (FetchPart(()),), store=str(store.path))
        try:
            return _opened(listing, Path(fetch(spec).folder), store)
        except (FetchError, ModelNotFoundError):
            continue
    return None


def _opened(listing: Listing, folder: Path, store: Store) -> ModelSource:
    revision = store.revision(listing.model, listing.revision)
    revision.ledger.refresh()
    held = sum(num_bytes(revision.spans(file)) for file in listing.files)
    return ModelSource(listing, folder, held == listing.total_bytes)


def _in_cache(name: str) -> ModelSource | None:
    """The one that the Hugging Face cache calls main, if it is whole."""
    for listing, folder in whole_models(name):
        return ModelSource(listing, folder, True)
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a path, say
        return False
