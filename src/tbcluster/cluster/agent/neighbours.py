"""The other nodes, as an agent deals with them: answers their measurements, measures and watches
the ways to them."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from tbcluster.cluster.agent.errands import Errands
from tbcluster.cluster.links.echo import EchoServer
from tbcluster.cluster.links.prober import Prober
from tbcluster.cluster.links.watcher import PathWatcher
from tbcluster.errors import TbclusterError
from tbcluster.machine import Interface, PathMeasurement
from tbcluster.wire.control import CurveKeys
from tbcluster.wire.rack import Measured, PathsSeen, Peer

logger = logging.getLogger(__name__)

CLOSE_S = 5.0


class Neighbours:
    """Measuring takes seconds and is done in a thread of its own, one peer after another.

    Args:
        say: Called with what is found out, in other threads.

    Attributes:
        port: Where other nodes' measurements are answered.

    Raises:
        RackError: No port can be bound.
    """

    def __init__(self, keys: CurveKeys, say: Callable[[Measured | PathsSeen], None]) -> None:
        self._say = say
        self._echo = EchoServer(keys)
        self.port = self._echo.port
        self._prober = Prober(keys)
        self._watcher = PathWatcher(keys, self._path_changed)
        self._peers: dict[str, Peer] = {}
        self._measured: dict[str, tuple[PathMeasurement, ...]] = {}
        self._seen: dict[str, PathsSeen] = {}
        self._errands = Errands("links")

    def meet(self, peers: Sequence[Peer]) -> None:
        """These are all other nodes that are online; nobody else is answered."""
        self._echo.allow([peer.public_key for peer in peers])
        known, self._peers = self._peers, {peer.node_id: peer for peer in peers}
        for peer_id in known.keys() - self._peers.keys():
            self._errands.do(partial(self._forget, peer_id))
        for peer in peers:
            before = known.get(peer.node_id)
            if before is not None and before.probe_port != peer.probe_port:
                self._errands.do(partial(self._follow, peer))

    def measure(self, peer_id: str, local: Sequence[Interface]) -> None:
        """Measure every path to a peer; `say` gets a `Measured`."""
        self._errands.do(lambda: self._measure(peer_id, local))

    def watch(self, peer_id: str, paths: tuple[PathMeasurement, ...]) -> None:
        """Watch paths that were measured before."""
        self._errands.do(lambda: self._watch(peer_id, paths))

    def seen(self) -> tuple[PathsSeen, ...]:
        """What was said last of each peer's paths."""
        return tuple(self._seen.copy().values())

    def close(self) -> None:
        """Answer nobody any more."""
        self._errands.close(CLOSE_S)
        self._watcher.close()
        self._echo.close()

    def _measure(self, peer_id: str, local: Sequence[Interface]) -> None:
        paths: tuple[PathMeasurement, ...] = ()
        peer = self._peers.get(peer_id)
        try:
            if peer is not None:
                paths = self._prober.measure(peer, local)
        except (TbclusterError, OSError) as error:
            logger.warning("cannot measure the paths to %s: %s", peer_id, error)
        # First: what is seen of the paths from now on must not be taken for older news.
        self._say(Measured(peer_id, paths))
        self._watch(peer_id, paths)

    def _watch(self, peer_id: str, paths: tuple[PathMeasurement, ...]) -> None:
        peer = self._peers.get(peer_id)
        if peer is not None:
            self._measured[peer_id] = paths
            self._watcher.watch(peer, paths)

    def _forget(self, peer_id: str) -> None:
        if peer_id not in self._peers:
            self._measured.pop(peer_id, None)
            self._seen.pop(peer_id, None)
            self._watcher.forget(peer_id)

    def _follow(self, peer: Peer) -> None:
        """Its agent was started again and listens elsewhere. Its paths count as alive until they
        are seen to be dead."""
        paths = self._measured.get(peer.node_id)
        if paths is not None:
            self._watcher.watch(peer, paths)

    def _path_changed(self, peer_id: str, alive: tuple[str, ...], dead: tuple[str, ...]) -> None:
        for address in dead:
            logger.warning("no answer from %s at %s", self._name(peer_id), address)
        self._seen[peer_id] = PathsSeen(peer_id, alive, dead)
        self._say(self._seen[peer_id])

    def _name(self, peer_id: str) -> str:
        peer = self._peers.get(peer_id)
        return peer.name if peer is not None else peer_id
