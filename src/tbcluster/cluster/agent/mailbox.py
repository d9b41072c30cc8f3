"""Where the agent's own thread waits: for its other threads, and for the coordinator."""

import queue

from tbcluster.cluster.agent.errands import Errand
from tbcluster.transport.control import ControlClient
from tbcluster.wire.tensors import Buffer


class Mailbox:
    """What other threads want done in this one, and what comes over the connection. One thread,
    except for `post`."""

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[Errand] = queue.SimpleQueue()
        self._client: ControlClient | None = None

    def post(self, errand: Errand) -> None:
        """Have this done in the agent's own thread. Thread-safe."""
        self._errands.put(errand)
        client = self._client
        if client is not None:
            client.wake()

    def listen_to(self, client: ControlClient | None) -> None:
        """Wait for messages of this connection from now on."""
        self._client = client

    def wait(self, timeout_s: float) -> Errand | list[Buffer] | None:
        """The next thing to do, else the next message; None when the time is up, or for no
        reason."""
        if self._client is None:
            try:
                return self._errands.get(timeout=timeout_s)
            except queue.Empty:
                return None
        try:
            return self._errands.get_nowait()
        except queue.Empty:
            # Whatever is posted from here on wakes it.
            return self._client.receive(timeout_s)
