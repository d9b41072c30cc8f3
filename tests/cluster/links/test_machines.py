"""Measuring and watching the ways between two machines, which are network namespaces here."""

import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path as FilePath

import pytest
import zmq

from tbcluster.cluster.links.echo import EchoServer
from tbcluster.cluster.links.prober import MEASURE_S, Prober
from tbcluster.cluster.links.reach import REACH_S
from tbcluster.cluster.links.watcher import PathWatcher
from tbcluster.machine import Address, Interface, InterfaceKind, Path, PathMeasurement
from tbcluster.transport.curve import new_keys
from tbcluster.wire.rack import Peer
from tests.doubles.namespaces import End, Network, needs_namespaces

pytestmark = needs_namespaces

FAST_MBIT, SLOW_MBIT = 400, 50
# The issue's: how soon a cable that was cut, or mended, has to be noticed.
NOTICE_S = 5.0
# What a machine with other things to do may add.
BUSY_S = 4.0
Change = tuple[str, tuple[str, ...], tuple[str, ...]]

ECHO_KEYS, PROBER_KEYS = new_keys(), new_keys()


class Pair:
    """Two machines, `a` and `b`, with a slow cable, a fast one, and two without addresses of their
    own; `b` answers measurements. `old` is a third one, on a cable to `a`."""

    def __init__(self, network: Network) -> None:
        network.add("a", "b", "old")
        self.network = network
        self.slow = network.cable("a", "b")
        self.fast = network.cable("a", "b")
        self.bare = network.cable("a", "b", ipv4=False, ipv6=False)
        self.other_bare = network.cable("a", "b", ipv4=False, ipv6=False)
        self.to_old = network.cable("a", "old", ipv6=False)
        for ends, mbit in ((self.slow, SLOW_MBIT), (self.fast, FAST_MBIT)):
            for end in ends:
                network.shape(end.node, end.interface, mbit)
        self._contexts: dict[str, zmq.Context[zmq.Socket[bytes]]] = {}
        for node in network.nodes:
            with network.inside(node):
                self._contexts[node] = zmq.Context()
        with self.on("b") as context:
            self.echo = EchoServer(ECHO_KEYS, [PROBER_KEYS.public], context=context)

    def close(self) -> None:
        self.echo.close()
        for context in self._contexts.values():
            context.term()

    @contextmanager
    def on(self, node: str) -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
        """The calling thread is there; connections of this context leave from there."""
        with self.network.inside(node):
            yield self._contexts[node]

    def measure(
        self, ours: Sequence[Interface], theirs: Sequence[Interface], port: int | None = None
    ) -> list[PathMeasurement]:
        """The paths from a to b, or to whoever else has this port."""
        peer = Peer("b", "b", ECHO_KEYS.public, port or self.echo.port, tuple(theirs))
        with self.on("a") as context:
            return list(Prober(PROBER_KEYS, context=context).measure(peer, ours))

    def interfaces(self, index: int, *cables: list[End]) -> list[Interface]:
        """The interfaces of a (0) or b (1) for some cables, with every address they have."""
        return [
            self._interface(ends[index], has_routed=ends in (self.slow, self.fast))
            for ends in cables
        ]

    def _interface(self, end: End, *, has_routed: bool) -> Interface:
        addresses = [Address(self.network.link_local(end.node, end.interface), 64)]
        if has_routed:
            addresses += [Address(end.ipv4, 24), Address(end.ipv6, 64)]
        return Interface(end.interface, InterfaceKind.ETHERNET, True, 1500, tuple(addresses))


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Network() as network:
        made = Pair(network)
        yield made
        made.close()


def test_the_faster_cable_is_the_best_path(pair: Pair) -> None:
    cables = (pair.slow, pair.fast)
    ours, theirs = pair.interfaces(0, *cables), pair.interfaces(1, *cables)
    start = time.monotonic()
    fast, slow = pair.measure(ours, theirs)
    # Two paths, each with three addresses.
    assert time.monotonic() - start < REACH_S + 2 * MEASURE_S + BUSY_S
    assert (fast.path.interface, fast.path.remote_interface) == ("eth1", "eth1")
    assert (slow.path.interface, slow.path.remote_interface) == ("eth0", "eth0")
    # tbf lets a burst through at once.
    assert 2 * SLOW_MBIT / 1000 < fast.large_gbps < FAST_MBIT / 1000 * 1.3
    assert SLOW_MBIT / 1000 / 4 < slow.large_gbps < SLOW_MBIT / 1000 * 1.3
    assert SLOW_MBIT / 1000 / 4 < slow.small_gbps < SLOW_MBIT / 1000 * 1.3
    assert all(0 < path.round_trip_us < 100_000 for path in (fast, slow))


def test_link_local_addresses_are_enough(pair: Pair) -> None:
    ours, theirs = pair.interfaces(0, pair.bare), pair.interfaces(1, pair.bare)
    # Scopes of other cables are tried as well, and do not answer.
    (path,) = pair.measure([*pair.interfaces(0, pair.slow), *ours], theirs)
    assert path.path.interface == "eth2"
    assert path.path.address == f"{pair.network.link_local('b', 'eth2')}%eth2"


def test_a_machine_that_is_not_there_takes_no_longer_than_the_search(pair: Pair) -> None:
    nobody = Interface("eth0", InterfaceKind.ETHERNET, True, 1500, (Address("10.77.1.200", 24),))
    start = time.monotonic()
    assert pair.measure(pair.interfaces(0, pair.slow), [nobody]) == []
    assert time.monotonic() - start < REACH_S + BUSY_S


def test_a_machine_without_ipv6_is_measured_over_ipv4(pair: Pair) -> None:
    with pair.on("old") as context:
        FilePath("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        echo = EchoServer(ECHO_KEYS, [PROBER_KEYS.public], context=context)
    end = pair.to_old[1]
    interface = Interface(
        end.interface, InterfaceKind.ETHERNET, True, 1500, (Address(end.ipv4, 24),)
    )
    (path,) = pair.measure(pair.interfaces(0, pair.slow), [interface], echo.port)
    assert path.path == Path("", end.ipv4, end.interface)
    echo.close()


def test_cut_cables_are_noticed_and_their_mending_too(pair: Pair) -> None:
    changes: queue.SimpleQueue[Change] = queue.SimpleQueue()
    here, there = pair.bare[0], pair.other_bare[1]
    cut = tuple(
        f"{pair.network.link_local('b', ends[1].interface)}%{ends[0].interface}"
        for ends in (pair.bare, pair.other_bare)
    )
    kept = pair.fast[1].ipv4
    with pair.on("a") as context:
        watcher = PathWatcher(PROBER_KEYS, lambda *change: changes.put(change), context=context)
    peer = Peer("b", "b", ECHO_KEYS.public, pair.echo.port, ())
    watcher.watch(peer, [as_measured(address) for address in (kept, *cut)])
    await_change(changes, ("b", (kept, *cut), ()))
    with pytest.raises(queue.Empty):
        changes.get(timeout=1.5)
    for end in (here, there):
        pair.network.cut(end.node, end.interface)
    await_change(changes, ("b", (kept,), cut))
    for end in (here, there):
        pair.network.mend(end.node, end.interface)
    await_change(changes, ("b", (kept, *cut), ()))
    watcher.close()


def await_change(changes: "queue.SimpleQueue[Change]", wanted: Change) -> None:
    """Both cables need not change in the same moment."""
    give_up = time.monotonic() + NOTICE_S + BUSY_S
    while changes.get(timeout=max(0, give_up - time.monotonic())) != wanted:
        pass


def as_measured(address: str) -> PathMeasurement:
    return PathMeasurement(Path("", address, ""), 100, 1, 1, 0)
