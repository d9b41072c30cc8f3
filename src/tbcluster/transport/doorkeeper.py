"""Answers libzmq's question whether a public key may connect (ZAP, https://rfc.zeromq.org/spec/27).

libzmq asks over one in-process endpoint of each context; a thread there passes the question to
the guard of the socket's domain.
"""

import itertools
import logging
import threading
from collections.abc import Callable

import zmq
from zmq.utils import z85

from tbcluster.errors import StageError

logger = logging.getLogger(__name__)

ENDPOINT = "inproc://zeromq.zap.01"
VERSION = b"1.0"
ALLOWED, DENIED = b"200", b"300"

Allows = Callable[[str], bool]
Context = zmq.Context[zmq.Socket[bytes]]

_doorkeepers: dict[int, "Doorkeeper"] = {}
_lock = threading.Lock()


class Doorkeeper:
    """One for each context, for as long as the context is not terminated. Thread-safe."""

    def __init__(self, context: Context) -> None:
        self._underlying = context.underlying
        self._guards: dict[str, Allows] = {}
        self._numbers = itertools.count(1)
        # A shadow keeps no reference to the context, and `Context.destroy` does not close its
        # sockets; termination wakes the thread, and waits for it to close this one.
        shadow: Context = zmq.Context.shadow(context.underlying)
        self._socket = shadow.socket(zmq.REP)
        self._socket.set(zmq.LINGER, 0)
        try:
            self._socket.bind(ENDPOINT)
        except zmq.ZMQError as error:
            self._socket.close()
            raise StageError(f"another handler of connections is in use: {error}") from error
        threading.Thread(target=self._run, name="doorkeeper", daemon=True).start()

    def watch(self, allows: Allows) -> str:
        """A new domain whose keys this function decides on."""
        domain = str(next(self._numbers))
        self._guards[domain] = allows
        return domain

    def forget(self, domain: str) -> None:
        """Nobody is let in by this domain any more."""
        self._guards.pop(domain, None)

    def _run(self) -> None:
        try:
            while True:
                self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
        except zmq.ContextTerminated:
            pass
        finally:
            with _lock:
                _doorkeepers.pop(self._underlying, None)
            self._socket.close()

    def _answer(self, question: list[bytes]) -> list[bytes]:
        request_id, user = question[1], None
        match question:
            case [_, _, domain, _, _, b"CURVE", key]:
                user = self._user_of(domain.decode(), key)
        if user is None:
            # 300 ends the handshake and lets the client try again later: it may be allowed then. A
            # client that reads 400 gives up for good.
            return [VERSION, request_id, DENIED, b"unknown key", b"", b""]
        return [VERSION, request_id, ALLOWED, b"OK", user, b""]

    def _user_of(self, domain: str, key: bytes) -> bytes | None:
        """The key's text if it may connect; connections are known by it."""
        allows = self._guards.get(domain)
        user = z85.encode(key)
        try:
            return user if allows is not None and allows(user.decode()) else None
        except Exception:  # the thread's top loop: whatever fails keeps the door shut
            logger.exception("Nobody can be let in: asking who may connect failed")
            return None


def doorkeeper(context: Context) -> Doorkeeper:
    """The one of this context, made when first asked for."""
    with _lock:
        if context.underlying not in _doorkeepers:
            _doorkeepers[context.underlying] = Doorkeeper(context)
        return _doorkeepers[context.underlying]
