"""Several machines on one: network namespaces with cables and switches between them.

A namespace has addresses, interfaces and multicast of its own, so that what runs there sees no more
of the others than a machine of a rack does. Linux and root only: mark tests `needs_namespaces`.

Networks of several test processes do not meet: names carry the process and a random part. Whatever
a killed run has left behind is removed by the next one.
"""

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
import zmq

from tests.doubles.waiting import wait_until

PREFIX = "tbcluster-test"
FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000
# What a shaped interface lets through at once: more than the largest segment of TCP's own.
BURST_BYTES = 128 * 1024
QUEUE_MS = 50
NO_FLOOD = ("mcast_flood", "off")
# Addresses of an interface that is taken down stay, and none waits for duplicates to answer.
IPV6_SETTINGS = {"accept_dad": "0", "dad_transmits": "0", "keep_addr_on_down": "1"}


@dataclass(frozen=True, slots=True)
class End:
    """One end of a cable: an interface of a node, and its addresses without scope or length."""

    node: str
    interface: str
    ipv4: str
    ipv6: str


class Network:
    """Nodes by name, and what is plugged between them; leaving the block removes everything, and
    kills what still runs there."""

    def __init__(self) -> None:
        _remove_leftovers()
        # The thread of the process's own context starts with its first socket: not on a node,
        # where it would stay for the tests after this one.
        zmq.Context.instance().socket(zmq.PAIR).close()
        self._prefix = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(3)}"
        self.nodes: list[str] = []
        self._num_subnets = 0
        self._num_renumbered = 0
        self._num_ports: dict[str, int] = {}

    def add(self, *nodes: str) -> None:
        """Machines with nothing plugged in but their loopback."""
        for node in nodes:
            _run("ip", "netns", "add", self.namespace(node))
            self.nodes.append(node)
            self._num_ports[node] = 0
            self._ip(node, "link", "set", "lo", "up")
            for name, value in IPV6_SETTINGS.items():
                self._set_ipv6(node, "default", name, value)

    def cable(self, one: str, other: str, *, ipv4: bool = True, ipv6: bool = True) -> list[End]:
        """A cable between two nodes, which is a subnet of its own; its two ends, in this order.
        Link-local IPv6 addresses come by themselves."""
        ends = [(one, self._next_port(one)), (other, self._next_port(other))]
        self._plug(*ends)
        return self._address(ends, ipv4=ipv4, ipv6=ipv6)

    def switch(self, *nodes: str, multicast: bool = True) -> list[End]:
        """A switch with a cable to each node, one subnet; the nodes' ends, in this order. Without
        multicast their IPv6 is off there, since it finds its neighbours by it."""
        switch = f"switch-{self._num_subnets}"
        self.add(switch)
        settings = ["forward_delay", "0", "mcast_snooping", "0"]
        self._ip(switch, "link", "add", "hub", "type", "bridge", *settings)
        self._ip(switch, "link", "set", "hub", "up")
        ends = [(node, self._next_port(node)) for node in nodes]
        for end in ends:
            port = self._next_port(switch)
            self._plug(end, (switch, port))
            self._ip(switch, "link", "set", port, "master", "hub")
            if not multicast:
                _run("bridge", "-n", self.namespace(switch), "link", "set", "dev", port, *NO_FLOOD)
                self._set_ipv6(*end, "disable_ipv6", "1")
        return self._address(ends, ipv4=True, ipv6=multicast)

    def shape(self, node: str, interface: str, mbit: float) -> None:
        """Slow down what leaves the node there; a cable slow both ways is shaped at both ends."""
        bucket = ["rate", f"{mbit}mbit", "burst", str(BURST_BYTES), "latency", f"{QUEUE_MS}ms"]
        qdisc = ["qdisc", "replace", "dev", interface, "root", "tbf", *bucket]
        _run("tc", "-n", self.namespace(node), *qdisc)

    def unshape(self, node: str, interface: str) -> None:
        """Let what leaves the node there go as fast as it can again."""
        _run("tc", "-n", self.namespace(node), "qdisc", "del", "dev", interface, "root")

    def swallow(self, node: str, address: str, *, ends: bool = False) -> None:
        """What the node sends to an IPv4 address goes astray, as behind a firewall; or no more."""
        # To a card that nobody has.
        nobody = ["lladdr", "02:00:00:00:00:fe", "nud", "permanent"]
        what = ["del", address] if ends else ["replace", address, *nobody]
        self._ip(node, "neigh", *what, "dev", "eth0")

    def cut(self, node: str, interface: str) -> None:
        """Unplug what is plugged in there; the other end loses its carrier."""
        self._ip(node, "link", "set", interface, "down")

    def mend(self, node: str, interface: str) -> None:
        """Plug it in again."""
        self._ip(node, "link", "set", interface, "up")
        self._await_link_local(node, interface)

    def renumber(self, end: End) -> End:
        """Give an end other addresses, the link-local one too, as a new lease or card would."""
        self._num_renumbered += 1
        host = 100 + self._num_renumbered
        moved = End(
            end.node,
            end.interface,
            f"{end.ipv4.rpartition('.')[0]}.{host}",
            f"{end.ipv6.rpartition(':')[0]}:{host}",
        )
        card = f"02:00:00:00:00:{host:02x}"
        self._ip(end.node, "link", "set", end.interface, "down", "address", card)
        self._ip(end.node, "addr", "flush", "dev", end.interface)
        self._ip(end.node, "link", "set", end.interface, "up")
        self._give(moved, ipv4=True, ipv6=True)
        return moved

    def link_local(self, node: str, interface: str) -> str:
        """Its IPv6 address there that begins with fe80, without a scope."""
        (address,) = self._link_locals(node, interface)
        return address

    def namespace(self, node: str) -> str:
        """The name by which the system's tools know it."""
        return f"{self._prefix}-{node}"

    def command(self, node: str) -> list[str]:
        """What to put before a command so that it runs there, with that node's /sys too; the
        process keeps the id that the whole was started with."""
        return ["ip", "netns", "exec", self.namespace(node)]

    @contextmanager
    def inside(self, node: str) -> Iterator[None]:
        """The calling thread is on that node, and so are the threads and processes it starts. A
        ZeroMQ context has to be made there too: its own thread opens the connections."""
        with _opened(Path("/proc/thread-self/ns/net")) as own:
            with _opened(FOLDER / self.namespace(node)) as there:
                _set_namespace(there)
            try:
                yield
            finally:
                _set_namespace(own)

    @contextmanager
    def connected(
        self, one: str, other: str, address: str, timeout_s: float = 1.0
    ) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Two ends of a plain TCP connection from `one` to this address of `other`.

        Raises:
            OSError: It does not come about.
        """
        with self.inside(other):
            everywhere = socket.create_server(
                ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True
            )
        with everywhere as listener:
            with self.inside(one):
                port = listener.getsockname()[1]
                client = socket.create_connection((address, port), timeout_s)
            with client:
                listener.settimeout(timeout_s)
                server, _ = listener.accept()
                with server:
                    yield client, server

    def processes(self, node: str) -> list[psutil.Process]:
        """What runs there now."""
        listed = _run("ip", "netns", "pids", self.namespace(node)).split()
        found = []
        for pid in listed:
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def close(self) -> None:
        """Remove everything."""
        for node in reversed(self.nodes):
            _remove(self.namespace(node))
        self.nodes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next_port(self, node: str) -> str:
        number = self._num_ports[node]
        self._num_ports[node] += 1
        return f"eth{number}"

    def _plug(self, *ends: tuple[str, str]) -> None:
        (one, port), (other, other_port) = ends
        peer = ["peer", "name", other_port, "netns", self.namespace(other)]
        self._ip(one, "link", "add", port, "type", "veth", *peer)
        for node, interface in ends:
            self._ip(node, "link", "set", interface, "up")

    def _address(self, ports: Sequence[tuple[str, str]], *, ipv4: bool, ipv6: bool) -> list[End]:
        self._num_subnets += 1
        ends = [
            End(
                node, port, f"10.77.{self._num_subnets}.{host}", f"fd77:{self._num_subnets}::{host}"
            )
            for host, (node, port) in enumerate(ports, 1)
        ]
        for end in ends:
            self._give(end, ipv4=ipv4, ipv6=ipv6)
        return ends

    def _give(self, end: End, *, ipv4: bool, ipv6: bool) -> None:
        wanted = [f"{end.ipv4}/24"] * ipv4 + [f"{end.ipv6}/64"] * ipv6
        for address in wanted:
            self._ip(end.node, "addr", "add", address, "dev", end.interface)
        self._await_link_local(end.node, end.interface)

    def _await_link_local(self, node: str, interface: str) -> None:
        with self.inside(node):
            if _ipv6_setting(interface, "disable_ipv6").read_text().strip() == "1":
                return
        wait_until(
            lambda: bool(self._link_locals(node, interface)), f"{node}'s {interface} has an address"
        )

    def _set_ipv6(self, node: str, interface: str, name: str, value: str) -> None:
        with self.inside(node):
            _ipv6_setting(interface, name).write_text(value)

    def _link_locals(self, node: str, interface: str) -> list[str]:
        output = self._ip(node, "-json", "-6", "addr", "show", "dev", interface, "scope", "link")
        listed: list[dict[str, Any]] = json.loads(output)
        addresses = [address for entry in listed for address in entry.get("addr_info", ())]
        # What the filter leaves out is listed as empty.
        return [found["local"] for found in addresses if found and not found.get("tentative")]

    def _ip(self, node: str, *arguments: str) -> str:
        return _run("ip", "-n", self.namespace(node), *arguments)


@cache
def can_make_namespaces() -> bool:
    """Whether this process may: it takes Linux, root, and `ip` and `tc` of iproute2."""
    name = f"{PREFIX}-{os.getpid()}-asked"
    try:
        _run("ip", "netns", "add", name)
        _remove(name)
        _run("tc", "-Version")
    except (AssertionError, OSError):
        return False
    return True


def _remove_leftovers() -> None:
    """Those of test processes that are gone."""
    if not FOLDER.is_dir():
        return
    for entry in FOLDER.iterdir():
        owner = entry.name.removeprefix(f"{PREFIX}-").partition("-")[0]
        if entry.name.startswith(PREFIX) and not psutil.pid_exists(int(owner)):
            with suppress(AssertionError):  # another run may be removing it at this moment
                _remove(entry.name)


def _remove(namespace: str) -> None:
    # A namespace that has lost its name would live on for as long as its processes do.
    for pid in _run("ip", "netns", "pids", namespace).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _run("ip", "netns", "del", namespace)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


def _ipv6_setting(interface: str, name: str) -> Path:
    """Of the machine that the calling thread is on."""
    return Path("/proc/sys/net/ipv6/conf") / interface / name


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _set_namespace(descriptor: int) -> None:
    """As os.setns of Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


needs_namespaces = pytest.mark.skipif(
    not can_make_namespaces(), reason="network namespaces need Linux, root, ip and tc"
)
