"""The interface of a one-way channel: lists of frames, in order, at most once.

A `Receiver` belongs to one thread; only `wake` may be called from others. A `Sender` belongs to
one thread. Neither blocks on a slow peer: back-pressure comes from the bounded number of
micro-batches in flight.
"""

from collections.abc import Sequence
from typing import Protocol

from tbcluster.wire.tensors import Buffer


class Receiver(Protocol):
    """The end that messages come out of."""

    def receive(self, timeout_s: float | None) -> list[Buffer] | None:
        """The next message, or None when the time is up or `wake` was called. A timeout of None
        waits for as long as it takes, 0 only looks."""
        ...

    def wake(self) -> None:
        """Make the current (or else the next) `receive` return at once. Thread-safe."""
        ...

    def close(self) -> None:
        """Free the endpoint; what was not received is gone."""
        ...


class Sender(Protocol):
    """The end that messages go into."""

    def send(self, frames: Sequence[Buffer]) -> None:
        """Hand over one message. Its buffers must not change afterwards."""
        ...

    def close(self) -> None:
        """Free the endpoint; what was not delivered is gone."""
        ...
