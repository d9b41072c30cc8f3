"""Machines are network namespaces; what is announced and asked really crosses between them."""

import logging
from collections.abc import Iterator

import pytest

from tbcluster.cluster.discovery import mdns
from tbcluster.cluster.discovery.mdns import Announcer, Browser
from tests.doubles.namespaces import End, Network, needs_namespaces
from tests.doubles.waiting import wait_until

pytestmark = needs_namespaces

PORT = 29640
CLUSTER, ANOTHER = "00112233445566aa", "00112233445566bb"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "POLL_S", 0.1)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture(scope="module")
def ends(network: Network) -> list[End]:
    """Two machines at one switch."""
    network.add("head", "mini")
    return network.switch("head", "mini")


def expected(network: Network, end: End, seen_through: str) -> set[str]:
    link_local = network.link_local(end.node, end.interface)
    return {
        f"{end.ipv4}:{PORT}",
        f"[{end.ipv6}]:{PORT}",
        f"[{link_local}%{seen_through}]:{PORT}",
    }


class Finder:
    """A browser on a node; scopes have the names that they have there."""

    def __init__(self, network: Network, node: str, cluster: str = CLUSTER) -> None:
        self._network = network
        self._node = node
        with network.inside(node):
            self.browser = Browser(cluster)

    def addresses(self) -> set[str]:
        with self._network.inside(self._node):
            return set(self.browser.addresses())


def announce(network: Network, node: str) -> Announcer:
    with network.inside(node):
        return Announcer(CLUSTER, PORT)


def test_it_is_found_at_all_its_addresses_until_it_goes(network: Network, ends: list[End]) -> None:
    announcer = announce(network, "head")
    finder, other = Finder(network, "mini"), Finder(network, "mini", ANOTHER)
    wanted = expected(network, ends[0], seen_through=ends[1].interface)
    wait_until(lambda: finder.addresses() == wanted, "all addresses are found")
    assert other.addresses() == set()
    announcer.close()
    wait_until(lambda: finder.addresses() == set(), "it is taken back")
    finder.browser.close()
    other.browser.close()


def test_who_looks_first_hears_of_it_without_asking_again(
    network: Network, ends: list[End], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mdns, "MIN_PAUSE_S", 600.0)
    finder = Finder(network, "mini")
    wait_until(lambda: finder.browser._ask_at > 0, "it has asked in vain")
    assert finder.addresses() == set()
    announcer = announce(network, "head")
    wait_until(lambda: f"{ends[0].ipv4}:{PORT}" in finder.addresses(), "it is found")
    announcer.close()
    finder.browser.close()


def test_machines_without_a_network_find_each_other_once_they_are_cabled(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    network.add("early-head", "early-mini")
    announcer = announce(network, "early-head")
    finder = Finder(network, "early-mini")
    assert finder.addresses() == set()
    head, mini = network.cable("early-head", "early-mini")
    wanted = expected(network, head, seen_through=mini.interface)
    wait_until(lambda: wanted <= finder.addresses(), "all addresses are found")
    announcer.close()
    finder.browser.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_cable_more_is_announced_too(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "POLL_S", 0.5)
    monkeypatch.setattr(mdns, "MAX_PAUSE_S", mdns.MIN_PAUSE_S)
    network.add("two-head", "two-mini")
    first, _ = network.cable("two-head", "two-mini")
    announcer, finder = announce(network, "two-head"), Finder(network, "two-mini")
    wait_until(lambda: f"{first.ipv4}:{PORT}" in finder.addresses(), "the first is found")
    second, mini = network.cable("two-head", "two-mini")
    wanted = expected(network, first, seen_through="eth0") | expected(
        network, second, seen_through=mini.interface
    )
    # psutil lists the interfaces that the main thread sees, whichever thread asks.
    with network.inside("two-head"):
        wait_until(lambda: wanted <= finder.addresses(), "the second is found")
    announcer.close()
    finder.browser.close()
