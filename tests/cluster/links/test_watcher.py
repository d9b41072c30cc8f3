"""Which paths answer now, over loopback."""

import queue
import time
from collections.abc import Iterator

import pytest

from tbcluster.cluster.links.echo import EchoServer
from tbcluster.cluster.links.health import DEAD_AFTER_S
from tbcluster.cluster.links.watcher import PathWatcher
from tbcluster.machine import Path, PathMeasurement
from tbcluster.transport.curve import new_keys
from tbcluster.wire.rack import Peer

DEADLINE_S = 20.0
SERVER_KEYS, NODE_KEYS = new_keys(), new_keys()
V4, V6, NOWHERE = "127.0.0.1", "::1", "fe80::1%none0"

Change = tuple[str, tuple[str, ...], tuple[str, ...]]


@pytest.fixture
def server() -> Iterator[EchoServer]:
    made = EchoServer(SERVER_KEYS, [NODE_KEYS.public])
    yield made
    made.close()


@pytest.fixture
def changes() -> "queue.SimpleQueue[Change]":
    return queue.SimpleQueue()


@pytest.fixture
def watcher(changes: "queue.SimpleQueue[Change]") -> Iterator[PathWatcher]:
    made = PathWatcher(NODE_KEYS, lambda *change: changes.put(change))
    yield made
    made.close()


def peer(port: int, node_id: str = "b") -> Peer:
    return Peer(node_id, "mini2", SERVER_KEYS.public, port, ())


def paths(*addresses: str) -> list[PathMeasurement]:
    return [PathMeasurement(Path("lo", one, "lo"), 100, 1, 1, 0) for one in addresses]


def test_what_stops_answering_is_dead_and_comes_back(
    server: EchoServer, watcher: PathWatcher, changes: "queue.SimpleQueue[Change]"
) -> None:
    start = time.monotonic()
    watcher.watch(peer(server.port), paths(V6, V4, NOWHERE))
    assert changes.get(timeout=DEADLINE_S) == ("b", (V6, V4, NOWHERE), ())
    assert changes.get(timeout=DEADLINE_S) == ("b", (V6, V4), (NOWHERE,))
    assert time.monotonic() - start > DEAD_AFTER_S
    server.allow([])
    await_change(changes, ("b", (), (V6, V4, NOWHERE)))
    server.allow([NODE_KEYS.public])
    await_change(changes, ("b", (V6, V4), (NOWHERE,)))


def test_each_peer_has_its_own_paths(
    server: EchoServer, watcher: PathWatcher, changes: "queue.SimpleQueue[Change]"
) -> None:
    silent = EchoServer(SERVER_KEYS, [])
    watcher.watch(peer(server.port), paths(V4))
    watcher.watch(peer(silent.port, "c"), paths(V4, V6))
    watcher.watch(peer(silent.port, "d"), paths(V4))
    watcher.forget("d")
    seen = await_change(changes, ("c", (), (V4, V6)))
    assert {peer_id for peer_id, _, dead in seen if dead} == {"c"}
    silent.close()


def test_who_begins_to_watch_is_told_even_if_nothing_has_changed(
    server: EchoServer, watcher: PathWatcher, changes: "queue.SimpleQueue[Change]"
) -> None:
    # Older news may be on its way to whoever takes these for alive from now on.
    for _ in range(3):
        watcher.watch(peer(server.port), paths(V4))
        assert changes.get(timeout=DEADLINE_S) == ("b", (V4,), ())


def test_new_measurements_start_from_what_is_known(
    watcher: PathWatcher, changes: "queue.SimpleQueue[Change]"
) -> None:
    silent = EchoServer(SERVER_KEYS, [])
    watcher.watch(peer(silent.port), paths(V4))
    await_change(changes, ("b", (), (V4,)))
    # Whoever was told of new paths took them for alive.
    watcher.watch(peer(silent.port), paths(V4))
    assert changes.get(timeout=1.0) == ("b", (), (V4,))
    # The peer has started again: another port, other answers.
    running = EchoServer(SERVER_KEYS, [NODE_KEYS.public])
    watcher.watch(peer(running.port), paths(V4, NOWHERE))
    assert changes.get(timeout=DEADLINE_S) == ("b", (V4, NOWHERE), ())
    assert changes.get(timeout=DEADLINE_S) == ("b", (V4,), (NOWHERE,))
    running.close()
    silent.close()


def await_change(changes: "queue.SimpleQueue[Change]", wanted: Change) -> list[Change]:
    """All changes up to this one: two paths need not change in the same moment."""
    seen = [changes.get(timeout=DEADLINE_S)]
    while seen[-1] != wanted:
        seen.append(changes.get(timeout=DEADLINE_S))
    return seen


def test_it_ends_at_once(server: EchoServer) -> None:
    watcher = PathWatcher(NODE_KEYS, lambda *_: None)
    watcher.watch(peer(server.port), paths(V4))
    start = time.monotonic()
    watcher.close()
    assert time.monotonic() - start < 2
