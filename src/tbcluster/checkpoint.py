"""The nouns of a model on disk, on one page: its files, and parts of them.

This module holds data only: no I/O, no clock.
"""

from dataclasses import dataclass


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
    """

    path: str
    size: int
    sha256: str | None = None


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
