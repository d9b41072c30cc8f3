import errno
import socket
from collections.abc import Iterator

import pytest

from tbcluster.cluster.agent.dialing import dial, seems_blocked
from tests.doubles.namespaces import Network, needs_namespaces

BLOCKED = errno.EHOSTUNREACH


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def test_nothing_to_dial_is_no_error() -> None:
    assert dial([]) == dial([], timeout_s=0)


def test_those_that_answer_come_in_the_order_asked_for(listener: socket.socket) -> None:
    port = port_of(listener)
    with socket.create_server(("127.0.0.1", 0)) as other:
        wanted = [f"127.0.0.1:{port_of(other)}", f"127.0.0.1:{port}"]
        for addresses in (wanted, wanted[::-1]):
            assert dial(addresses).answered == tuple(addresses)


def test_names_are_looked_up_and_one_place_counts_once(listener: socket.socket) -> None:
    port = port_of(listener)
    dialled = dial([f"localhost:{port}", f"127.0.0.1:{port}"])
    assert dialled.answered == (f"127.0.0.1:{port}",)


def test_what_fails_says_why(listener: socket.socket) -> None:
    port = port_of(listener)
    listener.close()
    addresses = (f"127.0.0.1:{port}", "no.such.host.invalid:1", f"{'x' * 70}.local:1", "host:port")
    dialled = dial(addresses, timeout_s=5.0)
    assert dialled.answered == ()
    assert dialled.failed[addresses[0]] == errno.ECONNREFUSED
    assert dialled.failed.keys() >= {addresses[0], *addresses[2:]}


@pytest.mark.parametrize(
    ("failed", "num_dialled", "platform", "expected"),
    [
        ([BLOCKED, BLOCKED], 2, "darwin", True),
        ([BLOCKED], 2, "darwin", False),
        ([BLOCKED, errno.ECONNREFUSED], 2, "darwin", False),
        ([errno.ETIMEDOUT], 1, "darwin", False),
        ([], 0, "darwin", False),
        ([BLOCKED, BLOCKED], 2, "linux", False),
    ],
)
def test_no_route_to_any_address_of_a_mac_is_its_privacy(
    failed: list[int], num_dialled: int, platform: str, expected: bool
) -> None:
    assert seems_blocked(failed, num_dialled, platform) is expected


@needs_namespaces
def test_link_local_addresses_keep_their_scope_and_silent_ones_cost_little() -> None:
    with Network() as network:
        network.add("head", "mini")
        head, mini = network.cable("head", "mini")
        with network.inside("head"):
            listener = socket.create_server(
                ("::", 29640), family=socket.AF_INET6, dualstack_ipv6=True
            )
        scoped = f"[{network.link_local('head', head.interface)}%{mini.interface}]:29640"
        # Nobody has the first one.
        addresses = ("[fe80::dead%eth0]:29640", scoped, f"{head.ipv4}:29640", "[::1]:29640")
        with listener, network.inside("mini"):
            dialled = dial(addresses, timeout_s=30.0, grace_s=0.5)
        assert dialled.answered == (scoped, f"{head.ipv4}:29640")
        assert dialled.failed["[::1]:29640"] == errno.ECONNREFUSED
