"""What a stage worker is told after its first spec: where its messages go, and other places among
the stages. Lines come in one thread, and the compute thread takes a new place when it is there."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tbcluster.errors import StageError
from tbcluster.transport.channel import Receiver, Sender
from tbcluster.transport.zeromq import RoutedSender
from tbcluster.wire.control import CurveKeys, Report, Routed, Routes, StageSpec, decode_order
from tbcluster.wire.messages import Result, Step, encode_result, encode_step


class Outbound:
    """Where finished steps go."""

    def __init__(self, to_next: Sender, to_coordinator: Sender) -> None:
        self._to_next = to_next
        self._to_coordinator = to_coordinator

    def send(self, output: Step | Result) -> None:
        """Send a step on, or a result back."""
        if isinstance(output, Result):
            self._to_coordinator.send(encode_result(output))
        else:
            self._to_next.send(encode_step(output))


class Exits:
    """The connections to the next stage and to the coordinator, which follow the parent's
    `Routes`."""

    def __init__(self, keys: CurveKeys | None) -> None:
        self._to_next = RoutedSender(keys)
        self._to_coordinator = RoutedSender(keys)
        self.outbound = Outbound(self._to_next, self._to_coordinator)

    def route(self, routes: Routes) -> None:
        """Send whatever comes after this call along these routes.

        Raises:
            TrustError: A route would leave the machine in the clear.
        """
        if routes.next_stage is not None:
            self._to_next.route(routes.next_stage)
        if routes.results is not None:
            self._to_coordinator.route(routes.results)

    def close(self) -> None:
        """Free the connections; what was not delivered is gone."""
        self._to_next.close()
        self._to_coordinator.close()


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One place among the stages: what the worker is there, its connections from there, and how
    many places it was given before."""

    spec: StageSpec
    exits: Exits
    number: int = 0


class Orders:
    """The parent's orders, followed.

    Attributes:
        place: The one that the compute thread has taken.
    """

    def __init__(self, spec: StageSpec, report: Callable[[Report], None]) -> None:
        self.place = Place(spec, Exits(spec.keys))
        self._next = self.place
        self._num_specs = 0  # after the first one
        self._report = report
        self._receiver: Receiver | None = None
        self._lock = threading.Lock()

    # In the compute thread

    @property
    def is_moved(self) -> bool:
        """Whether there is another place to take: no step of this one counts any more."""
        return self._next is not self.place

    def listen(self, receiver: Receiver) -> None:
        """A new place wakes this receiver."""
        with self._lock:
            self._receiver = receiver

    def move(self) -> Place:
        """Leave the old place, and take the one that was ordered last."""
        with self._lock:
            old, self.place, self._receiver = self.place, self._next, None
        if old is not self.place:
            old.exits.close()
        return self.place

    # In the thread that hears the parent

    def follow(self, line: bytes) -> None:
        """Do what this line says; what is said after a new place is about that one.

        Raises:
            WireError: It holds no order.
            TrustError: A route would leave the machine in the clear.
            StageError: The new place needs another shard than the one that is loaded.
        """
        match decode_order(line):
            case Routes() as routes:
                self._next.exits.route(routes)
                self._report(Routed(routes.serial))
            case StageSpec() as spec:
                self._assign(spec)

    def _assign(self, spec: StageSpec) -> None:
        self._num_specs += 1
        shard = self.place.spec.shard
        if not shard or spec.shard != shard:
            raise StageError(
                f"an order to become stage {spec.index} is ignored: it needs shard {spec.shard!r}, "
                f"and this worker holds {shard!r}"
            )
        place = Place(spec, Exits(spec.keys), self._num_specs)
        with self._lock:
            skipped, self._next = self._next, place
            if skipped is not self.place:
                skipped.exits.close()
            if self._receiver is not None:
                self._receiver.wake()
