"""The channel over ZeroMQ: PUSH to PULL, `ipc://` on one machine.

libzmq's own I/O thread sends and receives beside the thread that computes, so nothing here needs
a thread of its own.
"""

import math
import os
import threading
from collections.abc import Sequence

import zmq

from tbcluster.errors import StageError
from tbcluster.wire.tensors import Buffer

# Below this a copy into libzmq is cheaper than keeping track of the buffer (measured at 64 KB).
ZERO_COPY_BYTES = 64 * 1024
RECONNECT_MS = 20


class ZmqReceiver:
    """Binds an endpoint and receives from whoever connects."""

    def __init__(
        self, endpoint: str, context: zmq.Context[zmq.Socket[bytes]] | None = None
    ) -> None:
        self._socket = (context or zmq.Context.instance()).socket(zmq.PULL)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.RCVHWM, 0)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise StageError(f"cannot bind {endpoint}: {error.strerror}") from error
        self._wake_lock = threading.Lock()
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_out, zmq.POLLIN)

    def receive(self, timeout_s: float | None) -> list[Buffer] | None:
        # Looking first saves the poll when messages are already waiting.
        message = self._look()
        if message is not None or timeout_s == 0:
            return message
        ready = dict(self._poller.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)))
        if self._wake_out in ready:
            os.read(self._wake_out, 4096)
        return self._look() if self._socket in ready else None

    def wake(self) -> None:
        with self._wake_lock:
            if self._wake_in < 0:
                return
            try:
                os.write(self._wake_in, b"w")
            except BlockingIOError:
                return  # the pipe is full: a wake is pending already

    def close(self) -> None:
        with self._wake_lock:
            if self._wake_in < 0:
                return
            os.close(self._wake_in)
            os.close(self._wake_out)
            self._wake_in = -1
        self._socket.close(linger=0)

    def _look(self) -> list[Buffer] | None:
        try:
            header = self._socket.recv(zmq.DONTWAIT)
        except zmq.Again:
            return None
        frames: list[Buffer] = [header]
        while self._socket.get(zmq.RCVMORE):
            frames.append(self._socket.recv(copy=False).buffer)
        return frames


class ZmqSender:
    """Connects to an endpoint, which may not be bound yet, and sends to it."""

    def __init__(
        self, endpoint: str, context: zmq.Context[zmq.Socket[bytes]] | None = None
    ) -> None:
        self._socket = (context or zmq.Context.instance()).socket(zmq.PUSH)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.SNDHWM, 0)
        self._socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise StageError(f"cannot connect to {endpoint}: {error.strerror}") from error

    def send(self, frames: Sequence[Buffer]) -> None:
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            flags = zmq.SNDMORE if index < last else 0
            copy = memoryview(frame).nbytes < ZERO_COPY_BYTES
            self._socket.send(frame, flags | zmq.DONTWAIT, copy=copy)

    def close(self) -> None:
        self._socket.close(linger=0)
