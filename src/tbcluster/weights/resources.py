"""What a node's weights are called when another node asks for them over HTTP. Pure.

`/<model>/<revision>/<file>` is a file of a model, `/<model>/<revision>?ledger` the list of its
pieces that are there; each part is quoted, slashes too, but for those of the file.
"""

from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

LEDGER = "ledger"


class Resource(NamedTuple):
    """A file of a model; no file for its ledger."""

    model: str
    revision: str
    file: str | None


def path_of(resource: Resource) -> str:
    """What is asked for."""
    model, revision = quote(resource.model, safe=""), quote(resource.revision, safe="")
    if resource.file is None:
        return f"/{model}/{revision}?{LEDGER}"
    return f"/{model}/{revision}/{quote(resource.file)}"


def parse_path(path: str) -> Resource | None:
    """What was asked for; None for what can be no resource."""
    try:
        parts = urlsplit(path)
    except ValueError:  # brackets that hold no IPv6 address
        return None
    if parts.netloc or parts.scheme or not path.isascii():
        return None
    names = parts.path.removeprefix("/").split("/")
    if not parts.path.startswith("/") or len(names) < 2:
        return None
    model, revision, *file = (unquote(name) for name in names)
    if not all(map(_is_plain, (*model.split("/"), revision))):
        return None
    if parts.query == LEDGER and not file:
        return Resource(model, revision, None)
    if parts.query or not file or not all(map(_is_plain, file)):
        return None
    return Resource(model, revision, "/".join(file))


def _is_plain(name: str) -> bool:
    """Whether this is the name of one file or folder, and leads nowhere else."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
