"""Two nodes on this machine; what the second does, the tests do."""

import queue
from collections.abc import Iterator

import msgspec
import pytest

from tbcluster.cluster.agent.neighbours import Neighbours
from tbcluster.cluster.links.echo import EchoServer
from tbcluster.hardware.interfaces import local_interfaces
from tbcluster.machine import InterfaceKind
from tbcluster.transport.curve import new_keys
from tbcluster.wire.rack import Measured, PathsSeen, Peer
from tests.doubles.waiting import DEADLINE_S

KEYS, THEIRS = new_keys(), new_keys()
INTERFACES = local_interfaces()

pytestmark = pytest.mark.skipif(
    not any(
        one.is_up and one.addresses and one.kind is not InterfaceKind.LOOPBACK for one in INTERFACES
    ),
    reason="this machine has no address beside loopback",
)


class Node:
    """`Neighbours`, and what they have said."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[Measured | PathsSeen] = queue.SimpleQueue()
        self.neighbours = Neighbours(KEYS, self._said.put)

    def hear(self) -> Measured | PathsSeen:
        return self._said.get(timeout=DEADLINE_S)


@pytest.fixture
def node() -> Iterator[Node]:
    one = Node()
    yield one
    one.neighbours.close()


def peer_at(echo: EchoServer) -> Peer:
    return Peer("other", "other", THEIRS.public, echo.port, INTERFACES)


def test_paths_are_followed_until_the_peer_goes(node: Node) -> None:
    echo = EchoServer(THEIRS, [KEYS.public])
    peer = peer_at(echo)
    node.neighbours.meet([peer])
    node.neighbours.measure("other", INTERFACES)
    measured = node.hear()
    assert isinstance(measured, Measured)
    addresses = tuple(path.path.address for path in measured.paths)
    assert addresses
    assert node.hear() == PathsSeen("other", addresses, ())
    echo.close()
    dead = node.hear()
    assert isinstance(dead, PathsSeen)
    assert dead.dead
    assert node.neighbours.seen() == (dead,)
    # Its agent is started again, at another port: nobody has to measure anew.
    again = EchoServer(THEIRS, [KEYS.public])
    node.neighbours.meet([msgspec.structs.replace(peer, probe_port=again.port)])
    while (said := node.hear()) != PathsSeen("other", addresses, ()):
        assert isinstance(said, PathsSeen)
    again.close()
    while not said.dead:
        said = node.hear()
        assert isinstance(said, PathsSeen)
    node.neighbours.meet([])
    node.neighbours.measure("other", INTERFACES)
    assert node.hear() == Measured("other", ())
    assert node.neighbours.seen() == ()
