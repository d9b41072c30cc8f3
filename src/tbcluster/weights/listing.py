"""What the files of a model in a folder are, with the headers of its weights."""

from collections.abc import Callable
from dataclasses import replace
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
    try:
        files = tuple(_list_file(folder, path) for path in _model_files(folder))
    except (OSError, FetchError) as error:
        raise CorruptModelError(f"{folder} cannot be used: {error}") from error
    if not any(file.path == "config.json" for file in files):
        raise CorruptModelError(f"{folder} holds no config.json: is it a model folder?")
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
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(filter(is_fetched, names))


def _list_file(folder: Path, path: str) -> ListedFile:
    file = ListedFile(path, (folder / path).stat().st_size)
    if not file.holds_weights:
        return replace(file, sha256=hash_of(folder / path))
    header = read_header(folder / path, file)
    return replace(file, header_sha256=sha256(header).hexdigest())
