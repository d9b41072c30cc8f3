"""Watches whether the measured paths still answer."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tbcluster.cluster.discovery.addresses import join_port
from tbcluster.cluster.links.echo import ANSWER, MAX_TOKEN_BYTES
from tbcluster.cluster.links.health import PathHealth
from tbcluster.machine import PathMeasurement
from tbcluster.transport.control import ControlClient
from tbcluster.transport.doorkeeper import Context
from tbcluster.wire.control import CurveKeys, Route
from tbcluster.wire.rack import Peer

TICK_S = 0.25
PING = (ANSWER, b"ping")

# Peer's node id, addresses that answer, addresses that do not; both best first.
OnChange = Callable[[str, tuple[str, ...], tuple[str, ...]], None]


class Target(NamedTuple):
    """One address of one peer, as it is reached now."""

    peer_id: str
    address: str
    route: Route


class PathWatcher:
    """A thread that pings each path about once a second, until `close`.

    A path is dead after 2.5 s without an answer and alive again after three answers; those that
    were just measured count as alive. `on_change` is told of a peer as soon as it is watched and
    whenever one of its paths changes, in the watcher's thread.
    """

    def __init__(
        self, keys: CurveKeys, on_change: OnChange, *, context: Context | None = None
    ) -> None:
        self._keys = keys
        self._on_change = on_change
        self._context = context
        self._lock = threading.Lock()
        self._wanted: dict[str, tuple[Target, ...]] = {}
        # What was said of a peer last: its dead addresses; None where it has to be said anew.
        self._told: dict[str, tuple[str, ...] | None] = {}
        self._watched: dict[Target, _Watched] = {}
        self._wake = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="path-watcher", daemon=True)
        self._thread.start()

    def watch(self, peer: Peer, paths: Sequence[PathMeasurement]) -> None:
        """From now on these are a peer's paths, just measured; best first. Thread-safe."""
        addresses = dict.fromkeys(measured.path.address for measured in paths)
        targets = tuple(
            Target(
                peer.node_id,
                address,
                Route(f"tcp://{join_port(address, peer.probe_port)}", peer.public_key),
            )
            for address in addresses
        )
        with self._lock:
            self._wanted[peer.node_id] = targets
            # Older news may have been heard since these were taken for alive.
            self._told[peer.node_id] = None
        self._wake.set()

    def forget(self, peer_id: str) -> None:
        """The peer is gone, or not to be watched. Thread-safe."""
        with self._lock:
            self._wanted.pop(peer_id, None)
            self._told.pop(peer_id, None)
        self._wake.set()

    def close(self) -> None:
        """Ping nobody any more. Not to be called from `on_change`."""
        self._is_closing = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closing:
            with self._lock:
                wanted = dict(self._wanted)
            self._reconcile({target for targets in wanted.values() for target in targets})
            for watched in self._watched.values():
                watched.step(time.monotonic())
            for peer_id, targets in wanted.items():
                self._tell(peer_id, targets)
            self._wake.wait(TICK_S)
            self._wake.clear()
        self._reconcile(set())

    def _reconcile(self, targets: set[Target]) -> None:
        for target in self._watched.keys() - targets:
            self._watched.pop(target).close()
        for target in targets - self._watched.keys():
            self._watched[target] = _Watched(target.route, self._keys, self._context)

    def _tell(self, peer_id: str, targets: tuple[Target, ...]) -> None:
        alive = tuple(one.address for one in targets if self._watched[one].is_alive)
        dead = tuple(one.address for one in targets if not self._watched[one].is_alive)
        with self._lock:
            is_news = self._wanted.get(peer_id) == targets and self._told[peer_id] != dead
            if is_news:
                self._told[peer_id] = dead
        if is_news:
            self._on_change(peer_id, alive, dead)


class _Watched:
    """One path's connection and its health; belongs to the watcher's thread."""

    def __init__(self, route: Route, keys: CurveKeys, context: Context | None) -> None:
        self._route = route
        self._keys = keys
        self._context = context
        self._client = self._connect()
        self._health = PathHealth(time.monotonic())

    @property
    def is_alive(self) -> bool:
        return self._health.is_alive

    def step(self, now: float) -> None:
        """Take the answers that have come, and send what is due."""
        while self._client.receive(0) is not None:
            self._health.answered(now)
        self._health.pass_time(now)
        if self._health.wants_connection(now):
            self._client.close()
            self._client = self._connect()
            self._health.connected(now)
        if self._health.wants_ping(now):
            self._client.send(PING)
            self._health.pinged(now)

    def close(self) -> None:
        self._client.close()

    def _connect(self) -> ControlClient:
        return ControlClient(
            self._route, self._keys, max_message_bytes=MAX_TOKEN_BYTES, context=self._context
        )
