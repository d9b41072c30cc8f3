"""The channel over ZeroMQ: PUSH to PULL, `ipc://` on one machine, CURVE over tcp between machines.

libzmq's own I/O thread sends and receives beside the thread that computes, so nothing here needs
a thread of its own. What is under way when a connection breaks is lost.
"""

import threading
from collections.abc import Sequence

import zmq

from tbcluster.errors import StageError, WireError
from tbcluster.transport.curve import Guard
from tbcluster.transport.doorkeeper import Context
from tbcluster.transport.drops import Drops
from tbcluster.transport.sockets import SEALED_EXTRA_BYTES, bind, connect, port_of
from tbcluster.transport.trains import MAX_PART_BYTES, cut, join
from tbcluster.wire.control import CurveKeys, Route
from tbcluster.wire.tensors import Buffer

# Below this a copy into libzmq is cheaper than keeping track of the buffer (measured at 64 KB).
ZERO_COPY_BYTES = 64 * 1024


class ZmqReceiver:
    """Binds an endpoint and receives from whoever connects, or with a guard from whoever may.

    Args:
        endpoint: Such as ipc:///run/stage-0 or tcp://[::]:* (any port, all interfaces).

    Raises:
        StageError: The endpoint cannot be bound.
        TrustError: Other machines can reach the endpoint and there is no guard, or its keys are
            none.
    """

    def __init__(
        self, endpoint: str, context: Context | None = None, *, guard: Guard | None = None
    ) -> None:
        context = context or zmq.Context.instance()
        socket = context.socket(zmq.PULL)
        socket.set(zmq.RCVHWM, 0)
        self._is_guarded = guard is not None
        self._drops = Drops(endpoint)
        if self._is_guarded:
            # No stranger makes this process set aside more than this for a handshake.
            socket.set(zmq.MAXMSGSIZE, MAX_PART_BYTES + SEALED_EXTRA_BYTES)
        self._end = bind(socket, endpoint, guard, context, StageError)
        self.port = port_of(socket)
        """Bound to this TCP port; 0 for ipc."""

    def receive(self, timeout_s: float | None) -> list[Buffer] | None:
        return self._end.receive(self._look, timeout_s)

    def wake(self) -> None:
        self._end.wake()

    def close(self) -> None:
        self._end.close()

    def _look(self) -> list[Buffer] | None:
        while (frames := self._take()) is not None:
            if not self._is_guarded:
                return frames
            try:
                return join(frames)
            except WireError as error:
                self._drops.count(error)
        return None

    def _take(self) -> list[Buffer] | None:
        socket = self._end.socket
        try:
            header = socket.recv(zmq.DONTWAIT)
        except zmq.Again:
            return None
        frames: list[Buffer] = [header]
        while socket.get(zmq.RCVMORE):
            frames.append(socket.recv(copy=False).buffer)
        return frames


class ZmqSender:
    """Connects to an endpoint, which may not be bound yet, and sends to it.

    Args:
        keys: This end's own, where the route has a server key.

    Raises:
        StageError: Nothing can connect to such an endpoint.
        TrustError: Keys are missing or none, or the route leaves the machine in the clear.
    """

    def __init__(
        self, route: Route, context: Context | None = None, *, keys: CurveKeys | None = None
    ) -> None:
        self._socket = (context or zmq.Context.instance()).socket(zmq.PUSH)
        self._socket.set(zmq.SNDHWM, 0)
        self._drops = Drops(route.endpoint)
        self._is_sealed = route.server_key is not None
        if self._is_sealed:
            # Nothing but handshakes and heartbeats comes back.
            self._socket.set(zmq.MAXMSGSIZE, SEALED_EXTRA_BYTES)
        connect(self._socket, route, keys, StageError)

    def send(self, frames: Sequence[Buffer]) -> None:
        if self._is_sealed:
            frames = cut(frames)
        last = len(frames) - 1
        try:
            for index, frame in enumerate(frames):
                flags = zmq.SNDMORE if index < last else 0
                copy = memoryview(frame).nbytes < ZERO_COPY_BYTES
                self._socket.send(frame, flags | zmq.DONTWAIT, copy=copy)
        except zmq.Again:
            # libzmq gives up on a peer that speaks something else; another route may come.
            self._drops.count("what listens there is no stage of ours")

    def close(self) -> None:
        self._socket.close(linger=0)


class RoutedSender:
    """A sender whose peer can be changed while it is in use. Thread-safe."""

    def __init__(self, keys: CurveKeys | None = None, context: Context | None = None) -> None:
        self._keys = keys
        self._context = context
        self._lock = threading.Lock()
        self._sender: ZmqSender | None = None

    def route(self, route: Route) -> None:
        """Send over a new connection from now on, even to the same endpoint: another process may
        be there. What the old one has not sent is gone.

        Raises:
            StageError, TrustError: As for `ZmqSender`; the old connection stays.
        """
        sender = ZmqSender(route, self._context, keys=self._keys)
        # The lock hands the sockets from thread to thread, as libzmq asks for.
        with self._lock:
            old, self._sender = self._sender, sender
            if old is not None:
                old.close()

    def send(self, frames: Sequence[Buffer]) -> None:
        """Hand over one message; raises StageError before the first `route`."""
        with self._lock:
            if self._sender is None:
                raise StageError("a message was to be sent before there was a route for it")
            self._sender.send(frames)

    def close(self) -> None:
        """Free the endpoint; what was not delivered is gone."""
        with self._lock:
            if self._sender is not None:
                self._sender.close()
            self._sender = None
