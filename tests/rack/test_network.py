"""The rack's cables do what the tests of the rack believe they do."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.doubles.namespaces import FOLDER, End, Network, needs_namespaces
from tests.doubles.waiting import DEADLINE_S, join

pytestmark = needs_namespaces

NUM_BYTES = 2 << 20
MDNS_GROUP, MDNS_PORT = "224.0.0.251", 5353


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Two machines."""
    with Network() as made:
        made.add("one", "other")
        yield made


def test_every_kind_of_address_is_reached(network):
    end, far = network.cable("one", "other")
    scoped = f"{network.link_local('other', far.interface)}%{end.interface}"
    for address in (far.ipv4, far.ipv6, scoped):
        assert mbit_to(network, address) > 0


def test_a_shaped_cable_is_as_slow_as_asked(network):
    end, far = network.cable("one", "other")
    network.shape("one", end.interface, 200)
    assert 20 < mbit_to(network, far.ipv4) < 220
    network.unshape("one", end.interface)
    assert mbit_to(network, far.ipv4) > 250


def test_a_cable_is_cut_and_mended(network):
    _, far = network.cable("one", "other")
    assert mbit_to(network, far.ipv6) > 0
    network.cut("other", far.interface)
    with pytest.raises(OSError, match="timed out"):
        mbit_to(network, far.ipv6, timeout_s=0.2)
    network.mend("other", far.interface)
    assert mbit_to(network, far.ipv6) > 0


def test_a_renumbered_machine_has_no_old_address(network):
    end, far = network.cable("one", "other")
    old = [far.ipv4, far.ipv6, f"{network.link_local('other', far.interface)}%{end.interface}"]
    far = network.renumber(far)
    new = [far.ipv4, far.ipv6, f"{network.link_local('other', far.interface)}%{end.interface}"]
    for address in new:
        assert mbit_to(network, address) > 0
    for address in old:
        with pytest.raises(OSError, match=r"timed out|No route"):
            mbit_to(network, address, timeout_s=0.2)


@pytest.mark.parametrize("has_multicast", [True, False])
def test_a_switch_passes_multicast_on_or_not(network, has_multicast):
    end, far = network.switch("one", "other", multicast=has_multicast)
    assert mbit_to(network, far.ipv4) > 0
    assert hears_multicast(network, end, far) is has_multicast


def test_a_command_sees_its_own_interfaces_alone(network):
    command = [*network.command("one"), "ip", "-json", "link"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    names = {link["ifname"] for link in json.loads(shown)}
    assert "eth0" in names
    listed = [*network.command("one"), "ls", "/sys/class/net"]
    seen = subprocess.run(listed, capture_output=True, check=True, text=True).stdout.split()
    assert set(seen) == names


def test_nothing_is_left():
    with Network() as network:
        network.add("one")
        command = [*network.command("one"), "sh", "-c", "echo there; exec sleep 100"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        # Not before is it one of the namespace's.
        assert process.stdout.readline()
        namespace = FOLDER / network.namespace("one")
        assert namespace.exists()
    assert not namespace.exists()
    assert process.wait(timeout=10) < 0
    process.stdout.close()


def mbit_to(network: Network, address: str, timeout_s: float = 2.0) -> float:
    """Megabits a second from "one" to an address of "other"."""
    with network.connected("one", "other", address, timeout_s) as (client, server):
        server.settimeout(DEADLINE_S)
        sender = threading.Thread(target=client.sendall, args=(bytes(NUM_BYTES),))
        started = time.perf_counter()
        sender.start()
        num_left = NUM_BYTES
        while num_left:
            part = server.recv(1 << 16)
            assert part, "the connection broke"
            num_left -= len(part)
        seconds = time.perf_counter() - started
        join(sender, "all is sent")
    return NUM_BYTES * 8 / seconds / 1e6


def hears_multicast(network: Network, end: End, far: End) -> bool:
    """Whether what "one" says to the group reaches "other"."""
    with network.inside("other"):
        hearer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with network.inside("one"):
        sayer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with hearer, sayer:
        hearer.bind(("", MDNS_PORT))
        membership = socket.inet_aton(MDNS_GROUP) + socket.inet_aton(far.ipv4)
        hearer.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        hearer.settimeout(0.5)
        sayer.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(end.ipv4))
        sayer.sendto(b"anyone?", (MDNS_GROUP, MDNS_PORT))
        try:
            return hearer.recv(100) == b"anyone?"
        except TimeoutError:
            return False
