"""ZeroMQ sockets as this project sets them up: in the clear on one machine, CURVE beyond it."""

import errno
import math
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

import zmq

from tbcluster.errors import TbclusterError, TrustError
from tbcluster.transport.curve import Guard, be_client, be_server
from tbcluster.transport.doorkeeper import Context, doorkeeper
from tbcluster.wire.control import CurveKeys, Route

Socket = zmq.Socket[bytes]
T = TypeVar("T")

SCHEMES = ("ipc://", "inproc://", "tcp://")
# Endpoints that no other machine can reach.
LOCAL_SCHEMES = ("ipc://", "inproc://", "tcp://127.0.0.1:", "tcp://[::1]:")
LOCAL_RECONNECT_MS = 20
# Between machines; a whole handshake is not much more than two round trips.
RECONNECT_MS, MAX_RECONNECT_MS = 100, 1000
CONNECT_TIMEOUT_MS = 3000
HANDSHAKE_MS = 3000
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 1000, 3000
# libzmq closes sockets in a thread of its own: a port is taken for a moment longer.
REBIND_S = 0.3
# What CURVE adds to a frame, and more: its handshake's commands have to fit as well.
SEALED_EXTRA_BYTES = 1024


class WakeableSocket:
    """A socket that one thread waits on, and any other may wake."""

    def __init__(self, socket: Socket, on_close: Callable[[], None] | None = None) -> None:
        self.socket = socket
        self._on_close = on_close
        self._wake_lock = threading.Lock()
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._wake_out, zmq.POLLIN)

    def receive(self, look: Callable[[], T | None], timeout_s: float | None) -> T | None:
        """What `look` finds, or None when the time is up or `wake` was called."""
        # Looking first saves the poll when messages are already waiting.
        message = look()
        if message is not None or timeout_s == 0:
            return message
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        # What makes a socket readable may be no message: a new connection's credentials, or
        # something that `look` drops.
        while message is None:
            ready = self._poll(give_up)
            if self._wake_out in ready:
                os.read(self._wake_out, 4096)
            if self.socket in ready:
                message = look()
            is_late = give_up is not None and time.monotonic() >= give_up
            if self._wake_out in ready or not ready or is_late:
                return message
        return message

    def wake(self) -> None:
        """End the current `receive`, or else the next. Thread-safe; nothing once closed."""
        with self._wake_lock:
            if self._wake_in < 0:
                return
            try:
                os.write(self._wake_in, b"w")
            except BlockingIOError:
                return  # the pipe is full: a wake is pending already

    def close(self, linger_s: float = 0.0) -> None:
        """Free the socket, what was sent after so long at most; a second time does nothing."""
        with self._wake_lock:
            if self._wake_in < 0:
                return
            os.close(self._wake_in)
            os.close(self._wake_out)
            self._wake_in = -1
        self.socket.close(linger=round(linger_s * 1000))
        if self._on_close is not None:
            self._on_close()

    def _poll(self, give_up: float | None) -> dict[object, int]:
        if give_up is None:
            return dict(self._poller.poll())
        left_ms = math.ceil((give_up - time.monotonic()) * 1000)
        return dict(self._poller.poll(max(0, left_ms)))


def bind(
    socket: Socket,
    endpoint: str,
    guard: Guard | None,
    context: Context,
    error_class: type[TbclusterError],
) -> WakeableSocket:
    """Bind a socket, behind a guard unless the endpoint cannot be reached from elsewhere. What
    fails closes it.

    Raises:
        TrustError: No guard for an endpoint that others can reach, or bad keys.
        TbclusterError: Of the given class: the endpoint cannot be bound.
    """
    forget: Callable[[], None] | None = None
    try:
        _set_up(socket, endpoint, f"cannot bind {endpoint}", error_class)
        if guard is not None:
            keeper = doorkeeper(context)
            domain = keeper.watch(guard.allows)
            forget = partial(keeper.forget, domain)
            be_server(socket, guard.keys, domain)
        else:
            _refuse_others(endpoint, "a guard")
        _bind(socket, endpoint, error_class)
    except TbclusterError:
        socket.close()
        if forget is not None:
            forget()
        raise
    return WakeableSocket(socket, forget)


def connect(
    socket: Socket, route: Route, keys: CurveKeys | None, error_class: type[TbclusterError]
) -> None:
    """Connect a socket, whether or not anyone listens yet. What fails closes it.

    Raises:
        TrustError: Keys are missing or bad, or the route would leave the machine in the clear.
        TbclusterError: Of the given class: nothing can connect to such an endpoint.
    """
    try:
        _set_up(socket, route.endpoint, f"cannot connect to {route.endpoint}", error_class)
        if route.server_key is None:
            _refuse_others(route.endpoint, "the server's key")
        elif keys is None:
            raise TrustError(f"connecting to {route.endpoint} needs keys of its own")
        else:
            be_client(socket, keys, route.server_key)
        try:
            socket.connect(route.endpoint)
        except zmq.ZMQError as error:
            raise error_class(f"cannot connect to {route.endpoint}: {error.strerror}") from error
    except TbclusterError:
        socket.close()
        raise


def port_of(socket: Socket) -> int:
    """The TCP port that a socket is bound to; 0 if it has none."""
    endpoint = cast(bytes, socket.get(zmq.LAST_ENDPOINT)).decode()
    return int(endpoint.rpartition(":")[2]) if endpoint.startswith("tcp://") else 0


def _bind(socket: Socket, endpoint: str, error_class: type[TbclusterError]) -> None:
    give_up = time.monotonic() + REBIND_S
    while True:
        try:
            socket.bind(endpoint)
            return
        except zmq.ZMQError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > give_up:
                raise error_class(f"cannot bind {endpoint}: {error.strerror}") from error
        time.sleep(REBIND_S / 20)


def _set_up(socket: Socket, endpoint: str, failed: str, error_class: type[TbclusterError]) -> None:
    """Options of a connection; those of tcp notice a peer that is gone without a word."""
    if not endpoint.startswith(SCHEMES):
        raise error_class(f"{failed}: it begins with none of {', '.join(SCHEMES)}")
    socket.set(zmq.LINGER, 0)
    if not endpoint.startswith("tcp://"):
        socket.set(zmq.RECONNECT_IVL, LOCAL_RECONNECT_MS)
        return
    socket.set(zmq.IPV6, 1)
    socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.set(zmq.RECONNECT_IVL_MAX, MAX_RECONNECT_MS)
    socket.set(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.set(zmq.TCP_KEEPALIVE, 1)


def _refuse_others(endpoint: str, lacking: str) -> None:
    """In the clear, nothing may leave the machine."""
    if not endpoint.startswith(LOCAL_SCHEMES):
        raise TrustError(f"{endpoint} can be reached by other machines: it needs {lacking}")
