"""Which addresses answer at all."""

import socket
import time
from collections.abc import Iterator

import pytest

from tbcluster.cluster.links.reach import answering
from tbcluster.machine import Address, Interface, InterfaceKind, Path

LOOPBACK = Interface(
    "lo9", InterfaceKind.LOOPBACK, True, 65536, (Address("127.0.0.1", 8), Address("::1", 128))
)


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        yield listening.getsockname()[1]


def test_the_interface_is_the_one_the_kernel_chose(port: int) -> None:
    paths = [Path("", "127.0.0.1", "eth0"), Path("guess", "::1", "eth1")]
    assert answering(paths, port, [LOOPBACK]) == (
        Path("lo9", "127.0.0.1", "eth0"),
        Path("lo9", "::1", "eth1"),
    )


def test_an_interface_that_nobody_knows_stays_as_guessed(port: int) -> None:
    paths = [Path("guess", "127.0.0.1", "eth0")]
    assert answering(paths, port, []) == tuple(paths)


def test_what_refuses_is_left_out_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    start = time.monotonic()
    assert answering([Path("", "127.0.0.1", "a"), Path("", "::1", "b")], port, [], 30) == ()
    assert time.monotonic() - start < 10


def test_scopes_that_are_gone_and_nonsense_are_left_out(port: int) -> None:
    paths = [
        Path("gone0", "fe80::1%gone0", "a"),
        Path("", "not an address", "b"),
        Path("", "127.0.0.1", "c"),
    ]
    assert [path.remote_interface for path in answering(paths, port, [])] == ["c"]


def test_no_paths_take_no_time(port: int) -> None:
    start = time.monotonic()
    assert answering([], port, [], 30) == ()
    assert time.monotonic() - start < 5
