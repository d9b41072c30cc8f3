"""What somebody on the cable sees: every packet of an interface, and the TCP streams in them."""

import ctypes
import math
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple, Self

from tests.doubles.namespaces import Network
from tests.doubles.waiting import join

ETH_P_ALL = 0x0003
ETHERNET_BYTES = 14
# The kernel hands over segments before they are cut to the size of the wire's packets.
MAX_PACKET_BYTES = 1 << 18
BUFFER_BYTES = 64 << 20
SO_RCVBUFFORCE = 33
SOL_PACKET = 263
PACKET_STATISTICS = 6
POLL_S = 0.05
# For so long what came before the end is read where the cable is never still.
DRAIN_S = 5.0


class Segment(NamedTuple):
    """A TCP segment: from which end to which, the number of its first byte, what it carries."""

    ends: bytes
    sequence: int
    payload: bytes


class Capture:
    """Both directions of a node's interface, while the block runs."""

    def __init__(self, network: Network, node: str, interface: str) -> None:
        self.packets: list[bytes] = []
        with network.inside(node):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            self._socket.bind((interface, ETH_P_ALL))
        self._socket.settimeout(POLL_S)
        self._is_ending = threading.Event()
        self._read_until = math.inf
        self._thread = threading.Thread(target=self._read)

    def contains(self, needle: bytes) -> bool:
        """Whether it went over the cable, in one packet or over several segments of a stream.

        Raises:
            AssertionError: Packets were lost, or there were none: nothing can be said.
        """
        assert self.packets, "no packet was captured"
        return any(needle in data for data in (*self.packets, *streams(self.packets)))

    @property
    def num_bytes(self) -> int:
        """How much was on the cable."""
        return sum(len(packet) for packet in self.packets)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._read_until = time.monotonic() + DRAIN_S
        self._is_ending.set()
        join(self._thread, "all packets are read")
        size = struct.calcsize("II")
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, size)
        self._socket.close()
        _, num_lost = struct.unpack("II", statistics)
        assert num_lost == 0, f"{num_lost} packets were not captured"

    def _read(self) -> None:
        while time.monotonic() < self._read_until:
            try:
                self.packets.append(self._socket.recv(MAX_PACKET_BYTES))
            except TimeoutError:
                # Only when nothing is left in the socket's buffer.
                if self._is_ending.is_set():
                    return


def streams(packets: Iterable[bytes]) -> list[bytes]:
    """What the TCP connections in these Ethernet packets carried, one way each, in the order of
    its bytes; where a part is missing, a new entry begins."""
    segments: defaultdict[bytes, list[Segment]] = defaultdict(list)
    for packet in packets:
        segment = segment_of(packet)
        if segment is not None and segment.payload:
            segments[segment.ends].append(segment)
    return [run for connection in segments.values() for run in _runs(connection)]


def segment_of(packet: bytes) -> Segment | None:
    """The TCP segment in an Ethernet packet, if there is one."""
    kind = struct.unpack_from("!H", packet, 12)[0]
    data = packet[ETHERNET_BYTES:]
    if kind == 0x0800 and data[9] == socket.IPPROTO_TCP:
        length = struct.unpack_from("!H", data, 2)[0] or len(data)
        addresses, tcp = data[12:20], data[(data[0] & 0x0F) * 4 : length]
    elif kind == 0x86DD and data[6] == socket.IPPROTO_TCP:
        length = struct.unpack_from("!H", data, 4)[0] or len(data)
        addresses, tcp = data[8:40], data[40 : 40 + length]
    else:
        return None
    return Segment(
        ends=addresses + tcp[:4],
        sequence=struct.unpack_from("!I", tcp, 4)[0],
        payload=tcp[(tcp[12] >> 4) * 4 :],
    )


def _runs(segments: list[Segment]) -> list[bytes]:
    """Joined in order; what was sent again counts once."""
    # Sequence numbers wrap: they count from the first segment that was seen, before or after it.
    first = segments[0].sequence
    placed = sorted(
        (ctypes.c_int32(segment.sequence - first).value, segment.payload) for segment in segments
    )
    runs = [bytearray()]
    end = placed[0][0]
    for start, payload in placed:
        if start > end:
            runs.append(bytearray())
            end = start
        runs[-1] += payload[end - start :]
        end = max(end, start + len(payload))
    return [bytes(run) for run in runs]
