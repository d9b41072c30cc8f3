"""The server of a node's weights: other nodes of the rack copy from it, over HTTP inside TLS.

Whoever shows no certificate of the rack's is refused at the handshake. It is a process of its own,
so that reading and encrypting hold up nothing else; its agent keeps it running.
"""

import errno
import logging
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

from tbcluster.errors import FetchError, WireError
from tbcluster.hardware.open_files import raise_open_files
from tbcluster.weights.answering import Conversation, Shelf
from tbcluster.weights.parent import meet_agent
from tbcluster.weights.shelf import StoreShelf
from tbcluster.weights.tls import certificate_bytes, server_context, shows_one_of
from tbcluster.wire.control import STOP_LINE, Bound, Failed, decode_spec
from tbcluster.wire.errands import Accepted, ShareSpec

logger = logging.getLogger(__name__)

HANDSHAKE_S = 5.0
LOOK_S = 0.5
# Each node that copies has some ten.
MAX_CONNECTIONS = 512
# Beside connections, each of which reads a file.
OTHER_FILES = 64
# Of them before anyone has shown a certificate, from one address.
MAX_UNKNOWN = 16


@dataclass(slots=True, eq=False)
class _Guest:
    """A connection; `shown` is the certificate at its other end, once that is known."""

    host: str
    socket: socket.socket
    shown: bytes | None = None


class WeightServer:
    """Answers in threads of its own, until `close`.

    Args:
        tls_files: This node's certificate and key.
        port: To listen at if it is free; 0 for any.

    Attributes:
        port: Where it listens, on all interfaces.

    Raises:
        FetchError: No port can be bound, or the certificate cannot be used.
    """

    def __init__(self, shelf: Shelf, tls_files: Sequence[str], port: int = 0) -> None:
        self._shelf = shelf
        self._tls_files = tls_files
        self._lock = threading.Lock()
        self._guests: set[_Guest] = set()
        self._unknown: Counter[str] = Counter()
        self._accepted: frozenset[bytes] = frozenset()
        self._context = server_context(tls_files, ())
        self._is_closing = threading.Event()
        self._listener = _listen(port)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="weights", daemon=True)
        self._thread.start()

    def accept(self, certificates: Iterable[str]) -> None:
        """Whoever shows one of these may copy; all others are cut off."""
        usable: dict[bytes, str] = {}
        for certificate in certificates:
            try:
                usable[certificate_bytes(certificate)] = certificate
            except FetchError as error:
                logger.warning("%s", error)
        context = server_context(self._tls_files, usable.values())
        with self._lock:
            self._context, self._accepted = context, frozenset(usable)
            for guest in self._guests:
                if guest.shown is not None and guest.shown not in usable:
                    _cut(guest.socket)

    def close(self) -> None:
        """Answer nobody any more."""
        self._is_closing.set()
        self._thread.join()
        self._listener.close()
        with self._lock:
            for guest in self._guests:
                _cut(guest.socket)

    def _run(self) -> None:
        while not self._is_closing.is_set():
            try:
                connection, address = self._listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                # Gone before it was taken, or no file is left for it.
                logger.info("a connection was lost: %s", error.strerror)
                self._is_closing.wait(LOOK_S)
                continue
            self._take(_Guest(str(address[0]), connection))

    def _take(self, guest: _Guest) -> None:
        with self._lock:
            is_full = len(self._guests) >= MAX_CONNECTIONS
            if is_full or self._unknown[guest.host] >= MAX_UNKNOWN:
                guest.socket.close()
                return
            self._guests.add(guest)
            self._unknown[guest.host] += 1
        thread = threading.Thread(
            target=self._serve, args=(guest,), name="weights-copy", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the system has no room for another one
            logger.warning("%s cannot be answered: %s", guest.host, error)
            self._know(guest)
            self._forget(guest)

    def _serve(self, guest: _Guest) -> None:
        try:
            secured = self._meet(guest)
            if secured is not None:
                Conversation(secured, guest.host, self._shelf)
        except (OSError, ValueError) as error:
            logger.info("%s: %s", guest.host, error)
        finally:
            self._forget(guest)

    def _meet(self, guest: _Guest) -> ssl.SSLSocket | None:
        """Shake hands; None for one whose certificate is accepted no more."""
        try:
            guest.socket.settimeout(HANDSHAKE_S)
            secured = self._context.wrap_socket(
                guest.socket, server_side=True, do_handshake_on_connect=False
            )
            guest.socket = secured
            secured.do_handshake()
        finally:
            self._know(guest)
        with self._lock:
            guest.shown = secured.getpeercert(binary_form=True)
            return secured if shows_one_of(secured, self._accepted) else None

    def _know(self, guest: _Guest) -> None:
        """It counts no more among those who have not shown anything yet."""
        with self._lock:
            self._unknown[guest.host] -= 1
            self._unknown += Counter()  # drops those that are zero

    def _forget(self, guest: _Guest) -> None:
        with self._lock:
            self._guests.discard(guest)
        guest.socket.close()


def main() -> int:
    """Entry point of `python -m tbcluster.weights.serving`."""
    lines, report = meet_agent()
    line = lines.readline()
    if not line.endswith(b"\n"):
        return 0
    raise_open_files(2 * MAX_CONNECTIONS + OTHER_FILES)
    try:
        spec = decode_spec(line, ShareSpec)
        server = WeightServer(StoreShelf(Path(spec.store)), spec.tls_files, spec.port)
    except (FetchError, WireError) as error:
        report(Failed(type(error).__name__, str(error)))
        return 1
    report(Bound(server.port))
    follow(lines, server)
    return 0


def follow(lines: RawIOBase, server: WeightServer) -> None:
    """Let those copy that the parent names, until it is gone."""
    while (line := lines.readline()) not in (b"", STOP_LINE):
        try:
            server.accept(decode_spec(line, Accepted).certificates)
        except (FetchError, WireError) as error:
            logger.error("%s", error)


def _listen(port: int) -> socket.socket:
    for wanted in dict.fromkeys((port, 0)):
        try:
            listener = _bound(wanted)
        except OSError as error:
            problem = error
            continue
        listener.settimeout(LOOK_S)
        return listener
    raise FetchError(f"no port can be bound to let other nodes copy weights: {problem.strerror}")


def _bound(port: int) -> socket.socket:
    try:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return socket.create_server(("", port))


def _cut(connection: socket.socket) -> None:
    """Wake whoever reads or writes there."""
    with suppress(OSError):
        # SSLSocket's own would let the other thread go on in plain text for a moment.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


if __name__ == "__main__":
    sys.exit(main())
