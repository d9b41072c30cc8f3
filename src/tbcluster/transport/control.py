"""The control plane's connections: one server, many clients, messages both ways, CURVE always.

ROUTER and DEALER. The server knows each message's sender by the key of its connection. Queues are
bounded and nothing waits for a slow peer: what does not fit is not sent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import zmq

from tbcluster.errors import RackError, TrustError
from tbcluster.transport.curve import Guard
from tbcluster.transport.doorkeeper import Context
from tbcluster.transport.drops import Drops
from tbcluster.transport.sockets import (
    SEALED_EXTRA_BYTES,
    Socket,
    WakeableSocket,
    bind,
    connect,
    port_of,
)
from tbcluster.wire.control import CurveKeys, Route
from tbcluster.wire.tensors import Buffer

# Messages on their way to one peer, or from it.
MAX_QUEUED = 1000
MAX_FRAMES = 1024
# So many messages of those who are not allowed any more do not hold up whoever waits.
MAX_DROPS_AT_ONCE = 100


class Arrival(NamedTuple):
    """A message and who sent it.

    Attributes:
        peer: Its connection, for `ControlServer.send`; new after each reconnection.
        key: Public key of the sender, as proven by the handshake.
    """

    peer: bytes
    key: str
    frames: list[Buffer]


class ControlServer:
    """Binds an endpoint for those whom the guard allows. One thread, except for `wake`.

    Args:
        endpoint: Such as tcp://[::]:29640, or with port * for any.
        max_message_bytes: Larger messages are dropped, and a connection that sends a larger frame
            is closed.

    Raises:
        RackError: The endpoint cannot be bound.
        TrustError: The guard's keys are none.
    """

    def __init__(
        self,
        endpoint: str,
        guard: Guard,
        *,
        max_message_bytes: int,
        context: Context | None = None,
    ) -> None:
        context = context or zmq.Context.instance()
        socket = context.socket(zmq.ROUTER)
        _bound_queues(socket, max_message_bytes)
        # Messages for a peer that is gone are an error, not lost in silence.
        socket.set(zmq.ROUTER_MANDATORY, 1)
        self._guard = guard
        self._max_message_bytes = max_message_bytes
        self._drops = Drops(endpoint)
        self._end = bind(socket, endpoint, guard, context, RackError)
        self.port = port_of(socket)
        """Bound to this TCP port; 0 for ipc."""

    def receive(self, timeout_s: float | None) -> Arrival | None:
        """The next message, or None when the time is up or `wake` was called. A timeout of None
        waits for as long as it takes, 0 only looks.

        A message whose sender is not allowed any more is dropped here, though its connection
        still stands.
        """
        return self._end.receive(self._look, timeout_s)

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """Hand over one message to the connection of an `Arrival`; False if that is gone, or takes
        nothing more."""
        try:
            self._end.socket.send_multipart([peer, *frames], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return False
            raise
        return True

    def wake(self) -> None:
        """Make the current (or else the next) `receive` return at once. Thread-safe."""
        self._end.wake()

    def close(self, linger_s: float = 0.0) -> None:
        """Free the endpoint; what was not received is gone, and what was not delivered goes so
        long after the call."""
        self._end.close(linger_s)

    def _look(self) -> Arrival | None:
        for _ in range(MAX_DROPS_AT_ONCE):
            taken = self._take()
            if taken is None:
                return None
            peer, frames = taken
            key = _key_of(frames[0]) if frames else None
            if key is not None and self._guard.allows(key):
                return Arrival(peer, key, [frame.buffer for frame in frames])
        return None

    def _take(self) -> tuple[bytes, list[zmq.Frame]] | None:
        try:
            peer = self._end.socket.recv(zmq.DONTWAIT)
        except zmq.Again:
            return None
        return peer, _rest(self._end.socket, [], self._max_message_bytes, self._drops)


class ControlClient:
    """Connects to a server that has the route's key. One thread, except for `wake`.

    It connects again by itself when the connection breaks; the server then sees a new peer.

    Raises:
        RackError: Nothing can connect to such an endpoint.
        TrustError: A key is missing or none.
    """

    def __init__(
        self,
        route: Route,
        keys: CurveKeys,
        *,
        max_message_bytes: int,
        context: Context | None = None,
    ) -> None:
        if route.server_key is None:
            raise TrustError(f"connecting to {route.endpoint} needs the server's key")
        socket = (context or zmq.Context.instance()).socket(zmq.DEALER)
        _bound_queues(socket, max_message_bytes)
        self._max_message_bytes = max_message_bytes
        self._drops = Drops(route.endpoint)
        connect(socket, route, keys, RackError)
        self._end = WakeableSocket(socket)

    def send(self, frames: Sequence[Buffer]) -> bool:
        """Hand over one message, to be sent once there is a connection; False if too many wait."""
        try:
            self._end.socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_s: float | None) -> list[Buffer] | None:
        """The next message, or None when the time is up or `wake` was called. A timeout of None
        waits for as long as it takes, 0 only looks."""
        return self._end.receive(self._look, timeout_s)

    def wake(self) -> None:
        """Make the current (or else the next) `receive` return at once. Thread-safe."""
        self._end.wake()

    def close(self) -> None:
        """Free the connection; what was not received or delivered is gone."""
        self._end.close()

    def _look(self) -> list[Buffer] | None:
        while (frames := self._take()) is not None:
            if frames:
                return [frame.buffer for frame in frames]
        return None

    def _take(self) -> list[zmq.Frame] | None:
        try:
            first = self._end.socket.recv(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        return _rest(self._end.socket, [first], self._max_message_bytes, self._drops)


def _bound_queues(socket: Socket, max_message_bytes: int) -> None:
    socket.set(zmq.MAXMSGSIZE, max_message_bytes + SEALED_EXTRA_BYTES)
    socket.set(zmq.SNDHWM, MAX_QUEUED)
    socket.set(zmq.RCVHWM, MAX_QUEUED)


def _rest(socket: Socket, frames: list[zmq.Frame], max_bytes: int, drops: Drops) -> list[zmq.Frame]:
    """These frames and those that follow them in the message; none of one that is too large."""
    num_bytes, num_frames = sum(map(len, frames)), len(frames)
    while socket.get(zmq.RCVMORE):
        frame = socket.recv(copy=False)
        num_bytes, num_frames = num_bytes + len(frame), num_frames + 1
        if num_bytes <= max_bytes and num_frames <= MAX_FRAMES:
            frames.append(frame)
    if num_bytes > max_bytes or num_frames > MAX_FRAMES:
        drops.count(
            f"it has {num_bytes} bytes in {num_frames} frames, and {max_bytes} in {MAX_FRAMES} "
            "are allowed"
        )
        return []
    return frames


def _key_of(frame: zmq.Frame) -> str | None:
    """Public key of the connection that a frame came over."""
    try:
        key = frame.get("User-Id")
    except zmq.ZMQError:
        return None
    return key if isinstance(key, str) else None
