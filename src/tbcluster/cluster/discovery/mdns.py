"""The coordinator is announced, and found, by multicast DNS.

What is announced is public: the cluster's id, versions, addresses. A wrong answer costs an attempt
to connect and no more, since the other end has to prove that it holds the cluster's key.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version

import zeroconf
from zeroconf import IPVersion, ServiceInfo, Zeroconf

from tbcluster.cluster.discovery.addresses import in_order, join_port, lacks_scope
from tbcluster.cluster.trust.invitation import invited_to, link_local_scopes
from tbcluster.hardware.interfaces import local_interfaces
from tbcluster.wire.rack import RACK_PROTOCOL

logger = logging.getLogger(__name__)

SERVICE_TYPE = "_tbcluster._tcp.local."
# How often this machine's own addresses are looked at: cables and networks come and go.
POLL_S = 5.0
QUERY_MS = 1500
# Between two queries that nobody answered; an announcement is heard at any time.
MIN_PAUSE_S, MAX_PAUSE_S = 4.0, 30.0
CLOSE_S = 5.0


class Announcer:
    """Says on all networks of this machine, until it is closed, that the coordinator of a cluster
    is here."""

    def __init__(self, cluster_id: str, port: int) -> None:
        self._cluster_id = cluster_id
        self._port = port
        self._presence = _Presence(self._register)

    def close(self) -> None:
        """Take it back."""
        self._presence.close()

    def _register(self, multicast: Zeroconf, addresses: tuple[str, ...]) -> None:
        info = ServiceInfo(
            SERVICE_TYPE,
            _instance(self._cluster_id),
            port=self._port,
            properties={
                "cluster": self._cluster_id,
                "version": version("tbcluster"),
                "protocol": str(RACK_PROTOCOL),
            },
            server=f"tbcluster-{self._cluster_id}.local.",
            parsed_addresses=list(addresses),
        )
        # The name is this cluster's alone, so that nobody has to be asked whether it is free.
        multicast.register_service(info, cooperating_responders=True)


class Browser:
    """Looks for the coordinator of a cluster on all networks of this machine, until it is
    closed."""

    def __init__(self, cluster_id: str) -> None:
        self._name = _instance(cluster_id)
        self._pause_s = MIN_PAUSE_S
        self._ask_at = 0.0
        self._presence = _Presence(self._opened, self._ask)

    def addresses(self) -> tuple[str, ...]:
        """Where it is, with the port; empty as long as it has not been heard. A link-local address
        comes once with each interface of this machine. Thread-safe."""
        multicast = self._presence.multicast
        info = ServiceInfo(SERVICE_TYPE, self._name)
        if multicast is None or not info.load_from_cache(multicast) or info.port is None:
            return ()
        # Over which interface an address was heard says little: each one is announced on all of
        # the other machine's networks.
        hosts = dict.fromkeys(host.partition("%")[0] for host in info.parsed_scoped_addresses())
        wide_first = sorted(hosts, key=lambda host: (lacks_scope(host), ":" in host))
        addresses = [join_port(host, info.port) for host in wide_first]
        return in_order([addresses], info.port, link_local_scopes(local_interfaces()))

    def close(self) -> None:
        """Stop looking."""
        self._presence.close()

    def _opened(self, multicast: Zeroconf, addresses: tuple[str, ...]) -> None:
        self._pause_s, self._ask_at = MIN_PAUSE_S, 0.0

    def _ask(self, multicast: Zeroconf) -> None:
        if time.monotonic() < self._ask_at:
            return
        ServiceInfo(SERVICE_TYPE, self._name).request(multicast, QUERY_MS)
        self._ask_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)


class _Presence:
    """A thread that keeps multicast DNS open on the networks that there are. A machine without any
    is no error: it is looked again.

    Args:
        on_open: Called with each new `Zeroconf`, and this machine's addresses.
        on_turn: Called every few seconds while it is open.
    """

    def __init__(
        self,
        on_open: Callable[[Zeroconf, tuple[str, ...]], None],
        on_turn: Callable[[Zeroconf], None] = lambda _: None,
    ) -> None:
        self._on_open = on_open
        self._on_turn = on_turn
        self.multicast: Zeroconf | None = None
        self._addresses: tuple[str, ...] = ()
        self._complaint = ""
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mdns", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the sockets; what was announced is taken back."""
        self._is_closed.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not self._is_closed.is_set():
            try:
                self._turn()
            # What zeroconf raises where there is no network, or where it goes away.
            except (OSError, RuntimeError, zeroconf.Error, TimeoutError) as error:
                self._complain(str(error) or type(error).__name__)
                self._shut()
            self._is_closed.wait(POLL_S)
        self._shut()

    def _turn(self) -> None:
        addresses = invited_to(local_interfaces())
        if self.multicast is None or addresses != self._addresses:
            self._shut()
            self.multicast, self._addresses = _open(), addresses
            self._on_open(self.multicast, addresses)
        self._on_turn(self.multicast)

    def _shut(self) -> None:
        closing, self.multicast = self.multicast, None
        if closing is not None:
            with suppress(OSError, RuntimeError, zeroconf.Error, TimeoutError):
                closing.close()  # saying goodbye on a network that is gone

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            logger.warning("multicast DNS does not work here for now: %s", reason)
        self._complaint = reason


def _instance(cluster_id: str) -> str:
    return f"{cluster_id}.{SERVICE_TYPE}"


def _open() -> Zeroconf:
    try:
        return Zeroconf(ip_version=IPVersion.All, use_asyncio=False)
    except OSError:
        # A kernel without IPv6, or an interface that refuses it.
        return Zeroconf(ip_version=IPVersion.V4Only, use_asyncio=False)
