"""What the files of a model in a folder are, with the headers of its weights."""

from collections.abc import Callable
from dataclasses import replace
from glob import glob
from hashlib import sha256
from pathlib import Path

from tbcluster.checkpoint import ListedFile, Listing, is_fetched
from tbcluster.errors import CorruptModelError, FetchError
from tbcluster.weights.checking import hash_of
from tbcluster.weights.store import read_header


def list_folder(folder: Path) -> Listing:
    """The files of a model in a folder; its weights are not read, but for their headers.

    Raises:
        CorruptModelError: It holds no model, or a file cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise CorruptModelError(f"{folder} holds no config.json: is it a model folder?")
    try:
        files = tuple(_list_file(folder, path) for path in _model_files(folder))
    except (OSError, FetchError) as error:
        raise CorruptModelError(f"{folder} cannot be used: {error}") from error
    digest = sha256(repr(files).encode()).hexdigest()
    return Listing(folder.name, digest[:40], str(folder), files)


def with_headers(listing: Listing, read: Callable[[ListedFile], bytes]) -> Listing:
    """The same, with the hashes of headers that `read` gives."""
    return replace(
        listing,
        files=tuple(
            replace(file, header_sha256=sha256(read(file)).hexdigest())
            if file.holds_weights
            else file
            for file in listing.files
        ),
    )


def without_headers(listing: Listing) -> Listing:
    """The same, as the hub lists it."""
    return replace(
        listing, files=tuple(replace(file, header_sha256=None) for file in listing.files)
    )


def _model_files(folder: Path) -> list[str]:
    """Of the folder itself and of those in it, where embedding models say how they pool: a whole
    tree may be large, and may change meanwhile."""
    names = [name for level in ("*", "*/*") for name in glob(level, root_dir=folder)]
    return sorted(name for name in names if is_fetched(name) and (folder / name).is_file())


def _list_file(folder: Path, path: str) -> ListedFile:
    file = ListedFile(path, (folder / path).stat().st_size)
    if not file.holds_weights:
        return replace(file, sha256=hash_of(folder / path))
    header = read_header(folder / path, file)
    return replace(file, header_sha256=sha256(header).hexdigest())
