"""The nouns of a model on disk, on one page: its files, and parts of them.

This module holds data only: no I/O, no clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch

# What mlx-lm fetches, less *.py: no code that comes with a model is ever run.
FETCHED_FILES = [
    "*.json",
    "model*.safetensors",
    "tokenizer.model",
    "*.tiktoken",
    "*.txt",
    "*.jsonl",
    "*.jinja",
]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """`length` bytes of a file, from `offset`."""

    file: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a model.

    Attributes:
        path: Inside the model's folder, with forward slashes.
        sha256: Of the whole content, in hexadecimal; None where its source does not tell.
        header_sha256: Of a weight file's safetensors header with the 8 bytes before it; None for
            other files.
    """

    path: str
    size: int
    sha256: str | None = None
    header_sha256: str | None = None

    @property
    def holds_weights(self) -> bool:
        """Whether it is a safetensors file, of which parts can be of use."""
        return self.path.endswith(".safetensors")


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a model that tbcluster uses, as they were at one moment.

    Attributes:
        model: A Hugging Face id, or the last part of a folder's name.
        revision: A commit's hash; for a folder, a hash over names, sizes and headers.
        source: What the user named: the id, or the folder's absolute path on the head node.
    """

    model: str
    revision: str
    source: str
    files: tuple[ListedFile, ...]

    @property
    def total_bytes(self) -> int:
        """All files together."""
        return sum(file.size for file in self.files)


def is_fetched(path: str) -> bool:
    """Whether a repository's file is one of a model's that are used; hidden ones are not."""
    is_hidden = any(name.startswith(".") for name in path.split("/"))
    return not is_hidden and any(fnmatch(path, pattern) for pattern in FETCHED_FILES)


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same bytes in as few spans as can be, ascending; empty spans are left out."""
    found: list[Span] = []
    for span in sorted(spans):
        last = found[-1] if found else None
        if last is not None and last.file == span.file and span.offset <= last.end:
            found[-1] = Span(span.file, last.offset, max(last.end, span.end) - last.offset)
        elif span.length:
            found.append(span)
    return tuple(found)


def num_bytes(spans: Iterable[Span]) -> int:
    """All of them together."""
    return sum(span.length for span in spans)
