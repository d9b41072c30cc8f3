"""Copying weights from another node of the rack: HTTP inside TLS, each end known by certificate."""

import http.client
import socket
from collections.abc import Callable, Sequence

from tbcluster.checkpoint import Span
from tbcluster.errors import FetchError
from tbcluster.weights.resources import Resource, path_of
from tbcluster.weights.tls import certificate_bytes, client_context, shows_one_of
from tbcluster.wire.errands import Neighbour

CONNECT_S = 5.0
# For the next bytes of an answer.
PATIENCE_S = 20.0
BLOCK_BYTES = 1024**2
# More than any run of pieces, and than any model's ledger.
MAX_ANSWER_BYTES = 256 * 1024**2

Write = Callable[[memoryview], None]


class NeighbourClient:
    """One connection to a neighbour for one model, made at first use and again when it broke. For
    one thread at a time.

    Args:
        tls_files: Certificate and key that this node shows.
    """

    def __init__(
        self, neighbour: Neighbour, model: str, revision: str, tls_files: Sequence[str]
    ) -> None:
        self.neighbour = neighbour
        self._model = model
        self._revision = revision
        self._context = client_context(tls_files, [neighbour.certificate])
        self._certificate = certificate_bytes(neighbour.certificate)
        self._connection: http.client.HTTPConnection | None = None
        self._buffer = memoryview(bytearray(BLOCK_BYTES))

    def ledger(self, start: int = 0) -> bytes | None:
        """What its ledger of the model says from this byte on; None where it is not as long.

        Raises:
            FetchError: It cannot be reached, or not understood.
        """
        path = path_of(Resource(self._model, self._revision, None))
        response = self._ask(path, f"bytes={start}-")
        if response.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            response.read()
            return b"" if response.headers["Content-Range"] == f"bytes */{start}" else None
        content = bytearray()
        return bytes(content) if self._take(response, None, content.extend) else None

    def copy(self, span: Span, write: Write) -> bool:
        """Hand the bytes of a span to `write`, in order; what that raises goes through.

        Returns:
            False where it does not hold all of them; nothing was written then.

        Raises:
            FetchError: It cannot be reached, or not understood, or did not send all.
        """
        path = path_of(Resource(self._model, self._revision, span.file))
        response = self._ask(path, f"bytes={span.offset}-{span.end - 1}")
        return self._take(response, span.length, write)

    def close(self) -> None:
        """End the connection; another call makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, path: str, byte_range: str) -> http.client.HTTPResponse:
        """Ask once, or twice where the connection had been left unused for too long."""
        is_fresh = self._connection is None
        try:
            return self._ask_once(path, byte_range)
        except FetchError:
            if is_fresh:
                raise
            return self._ask_once(path, byte_range)

    def _ask_once(self, path: str, byte_range: str) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._connect()
        try:
            self._connection.request("GET", path, headers={"Range": byte_range})
            return self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error

    def _take(self, response: http.client.HTTPResponse, length: int | None, write: Write) -> bool:
        """Read an answer; `length` is what it must have, if that is known."""
        if response.status == http.HTTPStatus.NOT_FOUND:
            response.read()
            return False
        is_range = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if not is_range or length not in (None, response.length):
            self.close()
            raise FetchError(f"{self.neighbour.name} answers {response.status}: another version?")
        if (response.length or 0) > MAX_ANSWER_BYTES:
            self.close()
            raise FetchError(f"{self.neighbour.name} answers with {response.length} bytes")
        left = response.length or 0
        while left:
            block = self._buffer[: min(left, BLOCK_BYTES)]
            try:
                count = response.readinto(block)
            except (OSError, http.client.HTTPException) as error:
                raise self._broken(error) from error
            if not count:
                self.close()
                raise FetchError(f"{self.neighbour.name} ended its answer {left} bytes early")
            left -= count
            try:
                write(block[:count])
            except BaseException:
                self.close()  # the rest of the answer is in the way of another one
                raise
        response.read()
        return True

    def _broken(self, error: Exception) -> FetchError:
        self.close()
        return FetchError(f"{self.neighbour.name} cannot be copied from: {error}")

    def _connect(self) -> http.client.HTTPConnection:
        """By the best address that answers."""
        problem = "it has no address"
        for address in self.neighbour.addresses:
            connection = _Connection(address, self.neighbour.port, self._secure)
            try:
                connection.connect()
            except (OSError, FetchError) as error:
                connection.close()
                problem = f"{address}: {error}"
                continue
            return connection
        raise FetchError(f"{self.neighbour.name} cannot be reached: {problem}")

    def _secure(self, connection: socket.socket) -> socket.socket:
        secured = self._context.wrap_socket(connection)
        if not shows_one_of(secured, [self._certificate]):
            secured.close()
            raise FetchError(f"{self.neighbour.name} shows another certificate than its own")
        return secured


class _Connection(http.client.HTTPConnection):
    """HTTPS without names: who the other end is, is said by its certificate."""

    def __init__(
        self, address: str, port: int, secure: Callable[[socket.socket], socket.socket]
    ) -> None:
        super().__init__(address, port, timeout=PATIENCE_S)
        self._secure = secure

    def connect(self) -> None:
        connection = socket.create_connection((self.host, self.port), CONNECT_S)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = self._secure(connection)
            self.sock.settimeout(PATIENCE_S)
        except BaseException:
            connection.close()
            raise
