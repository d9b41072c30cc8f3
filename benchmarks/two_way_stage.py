"""A stage worker that takes steps sealed or in the clear, as its `Routes` say.

Where the weights of a process happen to lie makes it faster or slower than another one: what
encryption costs is measured within one process. Only this benchmark sends in the clear between
machines; the runtime refuses to.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path

from tbcluster.model.device import peak_memory_bytes, prepare_device
from tbcluster.model.loading import load_stage
from tbcluster.stage.beats import Work, start_beating
from tbcluster.stage.cache_store import CacheStore
from tbcluster.stage.executor import StageExecutor
from tbcluster.stage.orders import Outbound
from tbcluster.stage.parent import Reporter, follow_parent, meet_parent, read_spec
from tbcluster.stage.steps import run_steps
from tbcluster.stage.worker import guard_of
from tbcluster.transport import sockets
from tbcluster.transport.channel import Receiver
from tbcluster.transport.zeromq import RoutedSender, ZmqReceiver
from tbcluster.wire.control import Bound, Loading, Ready, Routed, Routes, StageSpec, decode_spec
from tbcluster.wire.tensors import Buffer


class TwoWayReceiver:
    """Two receivers, of which one is listened to."""

    def __init__(self, sealed: Receiver, plain: Receiver) -> None:
        self._ends = {True: sealed, False: plain}
        self._current = sealed

    def listen(self, *, is_sealed: bool) -> None:
        """Listen there from now on. Thread-safe."""
        before, self._current = self._current, self._ends[is_sealed]
        before.wake()

    def receive(self, timeout_s: float | None) -> list[Buffer] | None:
        return self._current.receive(timeout_s)

    def wake(self) -> None:
        self._current.wake()

    def close(self) -> None:
        for end in self._ends.values():
            end.close()


@contextmanager
def plain_permitted() -> Iterator[None]:
    """Let this process open connections in the clear over tcp."""
    before = sockets.LOCAL_SCHEMES
    sockets.LOCAL_SCHEMES = (*before, "tcp://")
    try:
        yield
    finally:
        sockets.LOCAL_SCHEMES = before


class Ways:
    """Where steps come from and go to, which follow the parent's `Routes`."""

    def __init__(self, spec: StageSpec, report: Reporter) -> None:
        self._report = report
        self.receiver: TwoWayReceiver | ZmqReceiver
        if spec.inbound.startswith("ipc://"):
            self.receiver = ZmqReceiver(spec.inbound)
        else:
            ends = ZmqReceiver(spec.inbound, guard=guard_of(spec)), ZmqReceiver(spec.inbound)
            self.receiver = TwoWayReceiver(*ends)
            for end in ends:
                report(Bound(end.port))
        self.to_next, self.to_coordinator = RoutedSender(spec.keys), RoutedSender(spec.keys)

    def follow(self, line: bytes) -> None:
        """Go the ways in this line."""
        routes = decode_spec(line, Routes)
        ways = ((self.to_next, routes.next_stage), (self.to_coordinator, routes.results))
        for sender, route in ways:
            if route is None:
                continue
            sender.route(route)
            if isinstance(self.receiver, TwoWayReceiver):
                self.receiver.listen(is_sealed=route.server_key is not None)
        self._report(Routed(routes.serial))


def main() -> None:
    """As `tbcluster.stage.worker.main`, with the other connections."""
    stdin, report = meet_parent()
    work = start_beating(report)
    logging.basicConfig(format="two-way stage: %(levelname)s %(message)s", level=logging.WARNING)
    with plain_permitted():
        serve(stdin, report, work)


def serve(stdin: RawIOBase, report: Reporter, work: Work) -> None:
    """Load the stage and run steps until the process is ended."""
    spec = read_spec(stdin, StageSpec)
    ways = Ways(spec, report)
    follow_parent(stdin, Path(spec.run_dir), ways.follow)
    model = load_stage(
        Path(spec.model),
        spec.layers,
        prepare_device(),
        lambda loaded, total: report(Loading(loaded, total)),
    )
    caches = CacheStore(model.make_cache, None)
    executor = StageExecutor(model, caches, spec.index, spec.num_stages, spec.epoch)
    report(Ready(peak_memory_bytes(), "CPU"))
    outbound = Outbound(ways.to_next, ways.to_coordinator)
    run_steps(executor, ways.receiver, outbound, spec.index, work)


if __name__ == "__main__":
    sys.exit(main())
