"""The ends of a link between two processes: pyzmq in the clear, encrypted, and with trains.

As a module (`python -m benchmarks.link_peer KIND`) it is the far end: it answers each message, with
the same one if that begins with ECHO.
"""

import json
import sys
from collections.abc import Sequence

import zmq

from tbcluster.transport.curve import be_client, new_keys
from tbcluster.transport.trains import cut, join
from tbcluster.transport.zeromq import ZERO_COPY_BYTES
from tbcluster.wire.control import CurveKeys
from tbcluster.wire.tensors import Buffer

ECHO, COUNT = b"echo", b"count"


class ClearEnd:
    """One end of a link, in the clear, frames as they are; `port` is for what comes to it."""

    def __init__(self, keys: CurveKeys) -> None:
        self._keys = keys
        # The runtime's own context lets nobody in who is not on a list.
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._inbound = context.socket(zmq.PULL)
        self._outbound = context.socket(zmq.PUSH)
        self._seal_inbound()
        self.port = self._inbound.bind_to_random_port("tcp://127.0.0.1")

    def connect(self, port: int, server_key: str) -> None:
        """Send to the other end from now on."""
        self._seal_outbound(server_key)
        self._outbound.connect(f"tcp://127.0.0.1:{port}")

    def send(self, frames: Sequence[Buffer]) -> None:
        *others, last = frames
        for frame in others:
            self._send(frame, zmq.SNDMORE)
        self._send(last, 0)

    def receive(self) -> list[Buffer]:
        return [frame.buffer for frame in self._inbound.recv_multipart(copy=False)]

    def close(self) -> None:
        self._inbound.close(linger=0)
        self._outbound.close(linger=0)

    def _send(self, frame: Buffer, flags: int) -> None:
        copy = memoryview(frame).nbytes < ZERO_COPY_BYTES
        self._outbound.send(frame, flags, copy=copy)

    def _seal_inbound(self) -> None:
        pass

    def _seal_outbound(self, server_key: str) -> None:
        pass


class SealedEnd(ClearEnd):
    """Encrypted, frames as they are."""

    def _seal_inbound(self) -> None:
        self._inbound.set(zmq.CURVE_SERVER, 1)
        self._inbound.set(zmq.CURVE_SECRETKEY, self._keys.secret.encode())

    def _seal_outbound(self, server_key: str) -> None:
        be_client(self._outbound, self._keys, server_key)


class TrainsEnd(SealedEnd):
    """Encrypted, large frames in trains."""

    def send(self, frames: Sequence[Buffer]) -> None:
        super().send(cut(frames))

    def receive(self) -> list[Buffer]:
        return join(super().receive())


KINDS: dict[str, type[ClearEnd]] = {"trains": TrainsEnd, "sealed": SealedEnd, "clear": ClearEnd}


def main() -> None:
    """Say where to send to, learn where answers go, and answer until killed."""
    keys = new_keys()
    end = KINDS[sys.argv[1]](keys)
    print(json.dumps([end.port, keys.public]), flush=True)
    end.connect(*json.loads(sys.stdin.readline()))
    while True:
        message = end.receive()
        end.send(message if bytes(message[0]) == ECHO else [COUNT])


if __name__ == "__main__":
    main()
