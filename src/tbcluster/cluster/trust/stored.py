"""Files of the trust folder: private, JSON, checked against a type when they are read."""

from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from tbcluster.errors import TrustError
from tbcluster.hardware.private_file import PrivateFile

Content = TypeVar("Content", bound=msgspec.Struct)


class StoredFile(PrivateFile, Generic[Content]):
    """One value of type `kind` on disk.

    Args:
        way_out: What to do where the file is none of ours, for the error.
    """

    def __init__(self, path: Path, kind: type[Content], way_out: str) -> None:
        super().__init__(path, TrustError)
        self._kind = kind
        self._way_out = way_out

    def load(self) -> Content | None:
        """What it holds; None where there is no file.

        Raises:
            TrustError: The file is open to others, cannot be read or is none of ours.
        """
        content = self.read()
        if content is None:
            return None
        try:
            return msgspec.json.decode(content, type=self._kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TrustError(
                f"{self.path} is not what tbcluster wrote ({error}): {self._way_out}"
            ) from error

    def save(self, content: Content) -> None:
        """Replace the file; only while it is locked."""
        self.replace(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
