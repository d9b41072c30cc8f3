"""The Hugging Face cache of this machine; nothing but `drop` changes it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from tbcluster.checkpoint import Listing
from tbcluster.errors import CorruptModelError
from tbcluster.weights.listing import list_folder


def snapshot(model: str, revision: str) -> Path:
    """Where it keeps this commit of a model, if it does."""
    name = repo_folder_name(repo_id=model, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / name / "snapshots" / revision


def holds_all(listing: Listing) -> bool:
    """Whether all files of this commit are there."""
    folder = snapshot(listing.model, listing.revision)
    return all(_size(folder / file.path) == file.size for file in listing.files)


def whole_models(only: str | None = None) -> Iterator[tuple[Listing, Path]]:
    """Those in the Hugging Face cache that are whole, as far as their own index tells."""
    cache = Path(constants.HF_HUB_CACHE)
    pattern = repo_folder_name(repo_id=only, repo_type="model") if only else "models--*--*"
    for repository in sorted(cache.glob(pattern)):
        try:
            commit = (repository / "refs" / "main").read_text().strip()
            folder = repository / "snapshots" / commit
            listing = list_folder(folder)
        except (OSError, CorruptModelError):
            continue
        if not _has_all_weights(folder, listing):
            continue
        _, owner, name = repository.name.split("--", 2)
        model = f"{owner}/{name}"
        yield replace(listing, model=model, revision=commit, source=model), folder


def drop(model: str, revision: str, file: str) -> bool:
    """Remove a file of this commit with its content, which may be of other commits, too; the next
    download fetches it anew.

    Returns:
        Whether it did: not where the content lies outside of what the cache has of this model.

    Raises:
        OSError: It cannot be removed.
    """
    folder = snapshot(model, revision)
    link, repository = folder / file, folder.parent.parent.resolve()
    content = link.resolve()
    if not (link.parent.resolve() / link.name).is_relative_to(repository):
        return False
    if not content.is_relative_to(repository):
        return False
    content.unlink(missing_ok=True)
    link.unlink(missing_ok=True)
    return True


def _has_all_weights(folder: Path, listing: Listing) -> bool:
    held = {file.path for file in listing.files if file.holds_weights}
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        return set(index["weight_map"].values()) <= held
    except FileNotFoundError:
        return "model.safetensors" in held
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
