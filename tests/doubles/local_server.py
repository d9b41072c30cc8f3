"""The server inside the test's own process, over real sockets: options that the command line does
not have, such as short deadlines."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

from fastapi import FastAPI

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.models import Models
from tbcluster.server.options import ServerOptions
from tbcluster.server.serving import Server, listen
from tests.doubles.waiting import wait_until

# What the kernel keeps for a connection, so that a reader who stops is felt early.
SEND_BUFFER_BYTES = 16 * 1024


class LocalServer:
    """Serves a cluster, or models, while the block runs; they answer no more requests afterwards.

    Args:
        is_open: Whether the cluster runs; otherwise the server says that it is being started.
    """

    def __init__(
        self,
        cluster: Cluster | Models,
        options: ServerOptions | None = None,
        *,
        is_open: bool = True,
    ) -> None:
        self.notes: list[str] = []
        models = cluster if isinstance(cluster, Models) else Models.of(cluster)
        self.server = Server(models, options or ServerOptions(), self.notes.append)
        if is_open:
            self.server.open()
        self._listener = listen("127.0.0.1", 0)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self.server.run, args=([self._listener],))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.address[0]}:{self.address[1]}"

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    @property
    def num_connections(self) -> int:
        """How many clients are connected."""
        return len(self.server.server_state.connections)

    @property
    def num_requests(self) -> int:
        """How many requests are being answered."""
        return len(self.server.server_state.tasks)

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """A plain connection; `receive_bytes` is what the kernel may keep for a reader."""
        client = socket.socket()
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(30)
        client.connect(self.address)
        return client

    @contextmanager
    def options(self, **changes: Any) -> Iterator[None]:
        """Other options for the answers that begin while the block runs."""
        app = self.server._front.app
        assert isinstance(app, FastAPI)
        before = app.state.options
        app.state.options = replace(before, **changes)
        try:
            yield
        finally:
            app.state.options = before

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.server.started, "the server is up")
        return self

    def __exit__(self, *_: object) -> None:
        self.interrupt()
        self.interrupt()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()

    def interrupt(self) -> None:
        """What Ctrl-C does: the first lets requests finish, the second ends them."""
        self.server.force_exit = self.server.should_exit
        self.server.should_exit = True


def read_all(client: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    try:
        while part := client.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)
