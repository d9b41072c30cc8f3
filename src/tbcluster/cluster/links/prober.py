"""Measures every way to another node."""

import ipaddress
import logging
import time
from collections.abc import Sequence

from tbcluster.cluster.discovery.addresses import join_port
from tbcluster.cluster.links.candidates import candidates
from tbcluster.cluster.links.conversation import Conversation
from tbcluster.cluster.links.ranking import best_first
from tbcluster.cluster.links.reach import answering
from tbcluster.machine import Interface, Path, PathMeasurement
from tbcluster.transport.doorkeeper import Context
from tbcluster.wire.control import CurveKeys, Route
from tbcluster.wire.rack import Peer

logger = logging.getLogger(__name__)

MEASURE_S = 2.0


class Prober:
    """Asks the `EchoServer`s of other nodes, with this node's keys. Any thread; one measurement
    at a time gives true figures."""

    def __init__(self, keys: CurveKeys, *, context: Context | None = None) -> None:
        self._keys = keys
        self._context = context

    def measure(self, peer: Peer, local: Sequence[Interface]) -> tuple[PathMeasurement, ...]:
        """The paths to a peer, best first; none if it answers on no address.

        Where several addresses lead from one interface to the same one there, the one that is
        likeliest to stay stands for them. Takes up to 1.5 s to find out which addresses answer,
        and up to 2 s for each path.
        """
        paths = answering(candidates(local, peer.interfaces), peer.probe_port, local)
        found = [self._measure_one(peer, same) for same in _by_interfaces(paths)]
        return best_first(filter(None, found), local, peer.interfaces)

    def _measure_one(self, peer: Peer, paths: Sequence[Path]) -> PathMeasurement | None:
        """What several addresses of one path come to: the first that gets large messages across;
        else whichever answers."""
        measured: PathMeasurement | None = None
        for path in sorted(paths, key=lambda path: steadiness(path.address)):
            measured = self._measure_path(peer, path) or measured
            if measured is not None and measured.large_gbps:
                break
        return measured

    def _measure_path(self, peer: Peer, path: Path) -> PathMeasurement | None:
        with self._talk_to(peer, path) as conversation:
            if not conversation.greet():
                logger.info("%s answers at %s, but not with its key", peer.name, path.address)
                return None
            round_trip_us = conversation.round_trip_us()
            if round_trip_us is None:
                return None
            small_gbps = conversation.small_gbps()
            large_gbps = conversation.large_gbps(small_gbps) if small_gbps else 0.0
        return PathMeasurement(path, round_trip_us, small_gbps, large_gbps, time.time())

    def _talk_to(self, peer: Peer, path: Path) -> Conversation:
        route = Route(f"tcp://{join_port(path.address, peer.probe_port)}", peer.public_key)
        return Conversation(route, self._keys, timeout_s=MEASURE_S, context=self._context)


def steadiness(address: str) -> tuple[int, str]:
    """The order of addresses that lead the same way. It does not depend on what was measured, so
    that connections need not move from one to the other; temporary IPv6 addresses come late, and
    169.254/16 last, which several interfaces may have at once."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 4:
        return (3 if ip.is_link_local else 0), address
    return (1 if ip.is_link_local else 2), address


def _by_interfaces(paths: Sequence[Path]) -> list[list[Path]]:
    """The addresses that lead from the same interface to the same one."""
    grouped: dict[tuple[str, str], list[Path]] = {}
    for path in paths:
        grouped.setdefault((path.interface, path.remote_interface), []).append(path)
    return list(grouped.values())
