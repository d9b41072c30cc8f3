"""One connection over which another node copies weights: HTTP/1.1, requests one after another.

What is asked for is read on the disk and written to the socket, and kept nowhere.
"""

import logging
import re
import ssl
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import RawIOBase
from pathlib import Path
from typing import NamedTuple, Protocol

from tbcluster.weights.resources import parse_path

logger = logging.getLogger(__name__)

# For a block to be taken, and for the next request to come.
PATIENCE_S = 20.0
BLOCK_BYTES = 1 << 20
RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?")


class HeldFile(NamedTuple):
    """A file of a model, of which these bytes (start, end) are here and verified: ascending, with
    gaps between them."""

    path: Path
    size: int
    ranges: tuple[tuple[int, int], ...]

    def holds(self, start: int, end: int) -> bool:
        """Whether all of this is here."""
        return any(first <= start and end <= last for first, last in self.ranges)


class Shelf(Protocol):
    """What a node can give."""

    def find(self, model: str, revision: str, file: str) -> HeldFile | None:
        """A file; None where nothing of it is here."""
        ...

    def ledger(self, model: str, revision: str) -> HeldFile | None:
        """The list of a model's pieces that are here; None where there is none."""
        ...


class Conversation(BaseHTTPRequestHandler):
    """Answers until the other end goes, is silent, or does not take what it asked for.

    Raises:
        OSError: The connection broke, or the other end is too slow.
    """

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tbcluster", ""
    timeout = PATIENCE_S
    disable_nagle_algorithm = True

    def __init__(self, connection: ssl.SSLSocket, host: str, shelf: Shelf) -> None:
        self._shelf = shelf
        # All of it happens in here.
        super().__init__(connection, (host, 0), None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """What the class of the standard library calls."""
        asked = parse_path(self.path)
        if asked is None:
            self._refuse(HTTPStatus.BAD_REQUEST)
        elif asked.file is None:
            self._send_file(self._shelf.ledger(asked.model, asked.revision))
        else:
            self._send_file(self._shelf.find(asked.model, asked.revision, asked.file))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
        """Each request is a line for those who look for one only."""
        logger.debug(format, *args)

    def _send_file(self, held: HeldFile | None) -> None:
        if held is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        text = self.headers.get("Range")
        wanted = _range(text, held.size)
        if wanted is None:
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            self._begin(status, 0, f"bytes */{held.size}")
        # An empty range is there wherever the file is.
        elif not held.holds(*wanted) and wanted[0] < wanted[1]:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._send_part(held, *wanted, is_whole=text is None)

    def _send_part(self, held: HeldFile, start: int, end: int, *, is_whole: bool) -> None:
        try:
            file = held.path.open("rb", buffering=0)
        except OSError as error:
            logger.warning("%s cannot be read: %s", held.path, error.strerror)
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with file:
            file.seek(start)
            content_range = None if is_whole else f"bytes {start}-{end - 1}/{held.size}"
            self._begin(
                HTTPStatus.OK if is_whole else HTTPStatus.PARTIAL_CONTENT,
                end - start,
                content_range,
            )
            self._copy(file, end - start)

    def _copy(self, file: RawIOBase, num_bytes: int) -> None:
        block = memoryview(bytearray(min(BLOCK_BYTES, num_bytes)))
        while num_bytes > 0:
            read = file.readinto(block[:num_bytes])
            if not read:
                # It was cut meanwhile; what was promised cannot be sent.
                self.close_connection = True
                return
            self.connection.sendall(block[:read])
            num_bytes -= read

    def _begin(self, status: HTTPStatus, num_bytes: int, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(num_bytes))
        if content_range is not None:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def _refuse(self, status: HTTPStatus) -> None:
        """In a way that leaves the connection for the next request."""
        self._begin(status, 0)


def _range(text: str | None, size: int) -> tuple[int, int] | None:
    """Start and end of what is asked for, all of it without a range; None for what cannot be."""
    if text is None:
        return 0, size
    found = RANGE.fullmatch(text.strip())
    if found is None:
        return None
    first = int(found[1])
    last = size - 1 if found[2] is None else int(found[2])
    return (first, last + 1) if first <= last < size else None
