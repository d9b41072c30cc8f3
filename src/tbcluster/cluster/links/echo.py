"""Answers other nodes' measurements, and nobody else.

A message is `ANSWER` or `SWALLOW`, a token, and any load. The token of an `ANSWER` is sent back
alone, so that the time until then is the time of the load, and of whatever was swallowed before.
"""

import threading
from collections.abc import Collection
from typing import Final

from tbcluster.cluster.links.ranking import LARGE_BYTES
from tbcluster.errors import RackError
from tbcluster.transport.control import Arrival, ControlServer
from tbcluster.transport.curve import Guard
from tbcluster.transport.doorkeeper import Context
from tbcluster.wire.control import CurveKeys

ANSWER: Final = b"answer"
SWALLOW: Final = b"swallow"
MAX_TOKEN_BYTES = 64
# IPv6 and IPv4; IPv4 alone where the other is off.
ENDPOINT = "tcp://*:*"
MAX_MESSAGE_BYTES = LARGE_BYTES + 4096


class EchoServer:
    """A thread that answers whoever holds one of the allowed keys, until `close`.

    Attributes:
        port: TCP port, on all interfaces.

    Raises:
        RackError: No port can be bound.
    """

    def __init__(
        self, keys: CurveKeys, allows: Collection[str] = (), *, context: Context | None = None
    ) -> None:
        self._allowed = frozenset(allows)
        self._server = _bind(Guard(keys, self._is_allowed), context)
        self.port = self._server.port
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="echo", daemon=True)
        self._thread.start()

    def allow(self, public_keys: Collection[str]) -> None:
        """Exactly these are answered from now on; others get no answer, connected or not."""
        self._allowed = frozenset(public_keys)

    def close(self) -> None:
        """Answer nobody any more."""
        self._is_closing = True
        self._server.wake()
        self._thread.join()

    def _is_allowed(self, public_key: str) -> bool:
        return public_key in self._allowed

    def _run(self) -> None:
        while not self._is_closing:
            arrival = self._server.receive(None)
            if arrival is not None:
                self._answer(arrival)
        self._server.close()

    def _answer(self, arrival: Arrival) -> None:
        if len(arrival.frames) < 2:
            return
        kind, token = bytes(arrival.frames[0][:MAX_TOKEN_BYTES]), arrival.frames[1]
        if kind == ANSWER and len(token) <= MAX_TOKEN_BYTES:
            self._server.send(arrival.peer, [bytes(token)])


def _bind(guard: Guard, context: Context | None) -> ControlServer:
    try:
        return ControlServer(ENDPOINT, guard, max_message_bytes=MAX_MESSAGE_BYTES, context=context)
    except RackError as error:
        raise RackError(f"no port for other nodes' measurements: {error}") from error
