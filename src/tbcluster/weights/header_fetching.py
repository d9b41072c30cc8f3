"""The headers of a model's files, from which follows how they are cut into pieces."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from tbcluster.checkpoint import ListedFile, Span
from tbcluster.errors import FetchError, ModelNotFoundError, TbclusterError
from tbcluster.weights.assigning import HUB
from tbcluster.weights.copying import Sources
from tbcluster.weights.headers import PREFIX_BYTES, header_length, parse_header

NUM_THREADS = 6
POLL_S = 0.2
# For a neighbour to have it.
WAIT_S = 30.0


def fetch_headers(
    sources: Sources,
    files: Iterable[ListedFile],
    first: Mapping[str, str],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, bytes]:
    """Of these files, by path, each in one portion, verified where the listing has its hash.

    Args:
        first: Which source to ask first; the hub where none is named.

    Raises:
        FetchError, ModelNotFoundError: One cannot be had from anywhere.
    """

    def fetch(file: ListedFile) -> bytes:
        return _fetch(sources, file, first.get(file.path, HUB), sleep)

    files = list(files)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        contents = list(pool.map(fetch, files))
    return {file.path: content for file, content in zip(files, contents, strict=True)}


def _fetch(sources: Sources, file: ListedFile, first: str, sleep: Callable[[float], None]) -> bytes:
    problem: TbclusterError | None = None
    if sources.no_hub_because is not None:
        problem = FetchError(f"{file.path} cannot be had: {sources.no_hub_because}")
    others = [name for name in sources.neighbours if name != first]
    for name in [HUB, *others] if first == HUB else [first, *others, HUB]:
        if name == HUB and sources.no_hub_because is not None:
            continue
        try:
            if name == HUB:
                content = _from_hub(sources, file)
            else:
                wait_s = WAIT_S if name == first else 0.0
                found = _from_neighbour(sources, name, file, wait_s, sleep)
                if found is None:
                    continue
                content = found
            parse_header(file, content)
        except (FetchError, ModelNotFoundError) as error:
            # What the hub says is what a user can do something about.
            problem = error if problem is None or name == HUB else problem
            continue
        return content
    raise problem or FetchError(f"the header of {file.path} cannot be had from anywhere")


def _from_hub(sources: Sources, file: ListedFile) -> bytes:
    def read(start: int, end: int) -> bytes:
        listing, span = sources.listing, Span(file.path, start, end - start)
        return sources.hub.read(listing.model, listing.revision, span, file.size)

    prefix = read(0, min(PREFIX_BYTES, file.size))
    content = prefix + read(PREFIX_BYTES, header_length(file, prefix))
    sources.received[HUB] += len(content)
    return content


def _from_neighbour(
    sources: Sources, name: str, file: ListedFile, wait_s: float, sleep: Callable[[float], None]
) -> bytes | None:
    if name not in sources.neighbours:
        return None
    client = sources.client(name)
    content = bytearray()
    try:
        while not client.copy(Span(file.path, 0, PREFIX_BYTES), content.extend):
            if wait_s <= 0:
                return None
            sleep(POLL_S)
            wait_s -= POLL_S
        length = header_length(file, bytes(content))
        if not client.copy(Span(file.path, PREFIX_BYTES, length - PREFIX_BYTES), content.extend):
            return None
    finally:
        client.close()
    sources.received[name] += len(content)
    return bytes(content)
