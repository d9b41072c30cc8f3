"""The floor under the cost of a hop: processes that pass on messages with pyzmq and do no more.

As a module (`python -m benchmarks.relay INBOUND OUTBOUND SIZE ...`) it is one such process: for
each message that comes in, one with frames of the given sizes goes out.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Self

import zmq

from tbcluster.cluster.places import make_run_dir

Sizes = Sequence[int]


class RelayRing:
    """Processes in a ring that begins and ends here, over ipc PUSH and PULL.

    Args:
        hops: Frame sizes of the message of each hop, at least two: the first leaves this process,
            the last comes back to it.
    """

    def __init__(self, hops: Sequence[Sizes]) -> None:
        self._run_dir = make_run_dir()
        self._message = [bytes(size) for size in hops[0]]
        self._num_hops = len(hops)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._inbound = context.socket(zmq.PULL)
        self._inbound.bind(self._endpoint(len(hops)))
        self._relays = [self._start(number, sizes) for number, sizes in enumerate(hops[1:], 1)]
        self._outbound = context.socket(zmq.PUSH)
        self._outbound.connect(self._endpoint(1))

    def hop_us(self) -> float:
        """Microseconds per hop of one trip around the ring."""
        started = time.perf_counter()
        self._outbound.send_multipart(self._message, copy=True)
        self._inbound.recv_multipart()
        return (time.perf_counter() - started) * 1e6 / self._num_hops

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for relay in self._relays:
            relay.kill()
            relay.wait()
        self._outbound.close(linger=0)
        self._inbound.close(linger=0)
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def _start(self, number: int, sizes: Sizes) -> subprocess.Popen[bytes]:
        ends = [self._endpoint(number), self._endpoint(number + 1)]
        arguments = [*ends, *(str(size) for size in sizes)]
        return subprocess.Popen([sys.executable, "-m", "benchmarks.relay", *arguments])

    def _endpoint(self, number: int) -> str:
        return f"ipc://{self._run_dir}/relay-{number}"


def main() -> None:
    """Pass on messages until killed."""
    inbound_endpoint, outbound_endpoint, *sizes = sys.argv[1:]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    inbound = context.socket(zmq.PULL)
    inbound.bind(inbound_endpoint)
    outbound = context.socket(zmq.PUSH)
    outbound.connect(outbound_endpoint)
    message = [bytes(int(size)) for size in sizes]
    while True:
        inbound.recv_multipart()
        outbound.send_multipart(message, copy=True)


if __name__ == "__main__":
    main()
