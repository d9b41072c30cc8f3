"""The ends of a link between two processes: the runtime's own, and pyzmq with nothing around it.

As a module (`python -m benchmarks.link_peer KIND`) it is the far end: it answers each message, with
the same one if that begins with ECHO.
"""

import json
import sys
from collections.abc import Sequence
from typing import Protocol

import zmq

from tbcluster.transport.curve import Guard, be_client, new_keys
from tbcluster.transport.zeromq import ZmqReceiver, ZmqSender
from tbcluster.wire.control import CurveKeys, Route
from tbcluster.wire.tensors import Buffer

ECHO, COUNT = b"echo", b"count"


class End(Protocol):
    """One end of a link; both have a port for what comes to them."""

    port: int

    def connect(self, port: int, server_key: str) -> None:
        """Send to the other end from now on."""
        ...

    def send(self, frames: Sequence[Buffer]) -> None: ...

    def receive(self) -> Sequence[Buffer]: ...

    def close(self) -> None: ...


class TrainsEnd:
    """The runtime's channel: encrypted, large frames in trains."""

    def __init__(self, keys: CurveKeys) -> None:
        self._keys = keys
        guard = Guard(keys, lambda _: True)
        self._receiver = ZmqReceiver("tcp://127.0.0.1:*", guard=guard)
        self.port = self._receiver.port

    def connect(self, port: int, server_key: str) -> None:
        self._sender = ZmqSender(Route(f"tcp://127.0.0.1:{port}", server_key), keys=self._keys)

    def send(self, frames: Sequence[Buffer]) -> None:
        self._sender.send(frames)

    def receive(self) -> Sequence[Buffer]:
        while (message := self._receiver.receive(None)) is None:
            continue
        return message

    def close(self) -> None:
        self._receiver.close()
        self._sender.close()


class FramesEnd:
    """pyzmq in the clear, frames as they are."""

    def __init__(self, keys: CurveKeys) -> None:
        self._keys = keys
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._inbound = context.socket(zmq.PULL)
        self._outbound = context.socket(zmq.PUSH)
        self._seal_inbound()
        self.port = self._inbound.bind_to_random_port("tcp://127.0.0.1")

    def connect(self, port: int, server_key: str) -> None:
        self._seal_outbound(server_key)
        self._outbound.connect(f"tcp://127.0.0.1:{port}")

    def send(self, frames: Sequence[Buffer]) -> None:
        self._outbound.send_multipart(frames, copy=False)

    def receive(self) -> Sequence[Buffer]:
        return [frame.buffer for frame in self._inbound.recv_multipart(copy=False)]

    def close(self) -> None:
        self._inbound.close(linger=0)
        self._outbound.close(linger=0)

    def _seal_inbound(self) -> None:
        pass

    def _seal_outbound(self, server_key: str) -> None:
        pass


class SealedFramesEnd(FramesEnd):
    """pyzmq encrypted, frames as they are."""

    def _seal_inbound(self) -> None:
        self._inbound.set(zmq.CURVE_SERVER, 1)
        self._inbound.set(zmq.CURVE_SECRETKEY, self._keys.secret.encode())

    def _seal_outbound(self, server_key: str) -> None:
        be_client(self._outbound, self._keys, server_key)


KINDS: dict[str, type[TrainsEnd] | type[FramesEnd]] = {
    "trains": TrainsEnd,
    "sealed": SealedFramesEnd,
    "clear": FramesEnd,
}


def main() -> None:
    """Say where to send to, learn where answers go, and answer until killed."""
    keys = new_keys()
    end: End = KINDS[sys.argv[1]](keys)
    print(json.dumps([end.port, keys.public]), flush=True)
    end.connect(*json.loads(sys.stdin.readline()))
    while True:
        message = end.receive()
        end.send(message if bytes(message[0]) == ECHO else [COUNT])


if __name__ == "__main__":
    main()
