"""The agent's side of letting others copy weights: a real server, kept running."""

import os
import queue
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tbcluster.cluster.agent.sharing import MODULE, Sharing
from tbcluster.weights.resources import Resource, path_of
from tests.doubles.sites import CERTIFICATE, site_at
from tests.doubles.tls_peers import TlsPeer
from tests.doubles.waiting import DEADLINE_S, wait_until

PATH = path_of(Resource("org/tiny", "abc", "config.json"))


class Shared:
    """A node that shares, and what it has said of its port."""

    def __init__(self, run_dir: Path) -> None:
        self.ports: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.sharing = Sharing(site_at(run_dir), self.ports.put)
        self.port = self.ports.get(timeout=DEADLINE_S)

    def answers(self, peer: TlsPeer) -> bool:
        """Whether a peer gets an answer, even if there is nothing for it."""
        try:
            return peer.get(self.port, [CERTIFICATE], PATH) == (404, b"")
        except OSError:
            return False

    def close(self) -> None:
        self.sharing.close()


def server_processes() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if MODULE in child.cmdline()]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    with closing(Shared(tmp_path / "run")) as made:
        yield made
    assert not server_processes()


def test_those_who_are_named_may_copy(shared: Shared, tmp_path: Path) -> None:
    one, two = TlsPeer.at(tmp_path / "one"), TlsPeer.at(tmp_path / "two")
    assert not shared.answers(one)
    # A node that shares nothing has no certificate.
    shared.sharing.accept(["", one.certificate])
    wait_until(lambda: shared.answers(one), "one is answered")
    assert not shared.answers(two)
    shared.sharing.accept([two.certificate])
    wait_until(lambda: shared.answers(two), "two is answered")
    assert not shared.answers(one)


def test_a_server_that_dies_is_there_again_at_the_same_port(shared: Shared, tmp_path: Path) -> None:
    peer = TlsPeer.at(tmp_path / "peer")
    shared.sharing.accept([peer.certificate])
    wait_until(lambda: shared.answers(peer), "it is answered")
    (server,) = server_processes()
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: shared.answers(peer), "it is answered again")
    assert shared.ports.empty()
    assert [one.pid for one in server_processes()] != [server.pid]
