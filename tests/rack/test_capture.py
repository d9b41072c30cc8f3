"""A capture sees what is said in the clear; else the tests that find nothing would show nothing."""

import random
import socket
import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.capture import Capture, streams
from tests.doubles.namespaces import Network, needs_namespaces

TEXT = b"What is the capital of France?"


@needs_namespaces
def test_plain_text_is_seen_and_nothing_else_is():
    with Network() as network:
        network.add("one", "other")
        end, far = network.cable("one", "other")
        with (
            Capture(network, "one", end.interface) as capture,
            network.connected("one", "other", far.ipv4) as (client, server),
        ):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in TEXT:
                client.sendall(bytes([byte]))
            assert server.recv(len(TEXT), socket.MSG_WAITALL) == TEXT
        assert not any(TEXT in packet for packet in capture.packets), "it crossed in one piece"
        assert capture.contains(TEXT)
        assert not capture.contains(TEXT[::-1])


@given(
    st.binary(min_size=1, max_size=200),
    st.lists(st.integers(0, 200)),
    st.integers(0, 2**32 - 1),
    st.integers(4, 6).filter(lambda version: version != 5),
    st.randoms(use_true_random=False),
)
def test_a_stream_is_joined_whatever_order_its_segments_come_in(
    data: bytes, cuts: list[int], first: int, version: int, source: random.Random
) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = [(start, data[start:end]) for start, end in pairwise(edges)]
    sent = [*parts, *source.choices(parts, k=3)]  # some of them twice
    source.shuffle(sent)
    packets = [packet(version, first + start, payload) for start, payload in sent]
    assert streams(packets) == [data]


def test_what_lies_on_both_sides_of_a_gap_is_not_joined():
    packets = [packet(4, 10, b"abc"), packet(4, 14, b"def")]
    assert streams(packets) == [b"abc", b"def"]


def packet(version: int, sequence: int, payload: bytes) -> bytes:
    """An Ethernet packet with a TCP segment in it."""
    tcp = struct.pack("!HHIIBBHHH", 1, 2, sequence % 2**32, 0, 5 << 4, 0, 0, 0, 0) + payload
    if version == 4:
        ip = struct.pack("!BBHIBBH8s", 0x45, 0, 20 + len(tcp), 0, 64, 6, 0, bytes(8))
        return bytes(12) + b"\x08\x00" + ip + tcp
    ip = struct.pack("!IHBB32s", 6 << 28, len(tcp), 6, 64, bytes(32))
    return bytes(12) + b"\x86\xdd" + ip + tcp
