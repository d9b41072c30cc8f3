"""The in-memory twin: the same channel inside one process."""

import queue
from collections.abc import Sequence

from tbcluster.wire.tensors import Buffer


class MemoryChannel:
    """A `Sender` and a `Receiver` in one object."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[list[Buffer] | None] = queue.SimpleQueue()

    def send(self, frames: Sequence[Buffer]) -> None:
        self._messages.put([bytes(frame) for frame in frames])

    def receive(self, timeout_s: float | None) -> list[Buffer] | None:
        try:
            return self._messages.get(timeout=timeout_s) if timeout_s != 0 else self._look()
        except queue.Empty:
            return None

    def wake(self) -> None:
        self._messages.put(None)

    def close(self) -> None:
        pass

    def _look(self) -> list[Buffer] | None:
        return self._messages.get_nowait()
