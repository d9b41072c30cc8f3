"""Files of a model that lie on this machine already, outside of the store, and are used there."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tbcluster.checkpoint import ListedFile, Listing
from tbcluster.errors import FetchError
from tbcluster.weights.checking import hash_of
from tbcluster.weights.headers import parse_header
from tbcluster.weights.hf_cache import snapshot
from tbcluster.weights.ledger import Dropped, Lies
from tbcluster.weights.store import Revision, folder_name, is_unchanged, read_header


class _Place(NamedTuple):
    """A folder that may hold the model; `is_exact`: it is of that very revision if it does."""

    path: Path
    is_exact: bool


def use_in_place(revision: Revision, listing: Listing, folders: Sequence[str]) -> None:
    """Note in the ledger which files lie elsewhere, and which do no more; under the lock.

    Raises:
        OSError: The ledger cannot be written.
    """
    known = revision.holdings.lies
    kept = {file for file, place in known.items() if is_unchanged(place)}
    gone = [file for file in known if file not in kept]
    revision.ledger.append(Dropped(file) for file in gone)
    missing = [
        file
        for file in listing.files
        if file.path not in kept and not revision.whole(file.path).is_file()
    ]
    found = find_in_place(listing, missing, folders)
    # What the store has of a file that lies elsewhere is of no use any more.
    begun = [place.file for place in found if revision.holdings.of(place.file)]
    revision.ledger.append([*map(Dropped, begun), *found])
    for file in begun:
        revision.part(file).unlink(missing_ok=True)


def find_in_place(
    listing: Listing, files: Iterable[ListedFile], folders: Sequence[str]
) -> list[Lies]:
    """Those of these files that lie in the Hugging Face cache, where the head node has them, or in
    a folder of the model's name in one of `folders`."""
    places = list(_places(listing, folders))
    found = []
    for file in files:
        for place in places:
            lies = _look(place, file)
            if lies is not None:
                found.append(lies)
                break
    return found


def _places(listing: Listing, folders: Sequence[str]) -> Iterator[_Place]:
    if Path(listing.source).is_absolute():
        yield _Place(Path(listing.source), False)
    else:
        yield _Place(snapshot(listing.model, listing.revision), True)
    names = dict.fromkeys((listing.model.rsplit("/", 1)[-1], folder_name(listing.model)))
    for folder in folders:
        for name in names:
            yield _Place(Path(folder) / name, False)


def _look(place: _Place, file: ListedFile) -> Lies | None:
    path = place.path / file.path
    try:
        status = path.stat()
        if not path.is_file() or status.st_size != file.size:
            return None
        if not place.is_exact and not _is_same(path, file):
            return None
    except (OSError, FetchError):
        return None
    return Lies(file.path, str(path.absolute()), status.st_size, status.st_mtime_ns)


def _is_same(path: Path, file: ListedFile) -> bool:
    """Of weights only the header is compared: reading them would take as long as fetching them."""
    if file.holds_weights:
        if file.header_sha256 is None:
            return False
        parse_header(file, read_header(path, file))
        return True
    return file.sha256 is not None and hash_of(path) == file.sha256
