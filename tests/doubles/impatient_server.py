"""A server in a process of its own whose deadlines are short: `python -m` runs it."""

import socket
import sys
from contextlib import suppress

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.models import Models
from tbcluster.hardware.allocator import share_arenas
from tbcluster.server import serving
from tbcluster.server.options import ServerOptions
from tests.doubles.server import ServeProcess

# What the kernel keeps for a connection, so that a reader who stops is felt early.
SEND_BUFFER_BYTES = 16 * 1024
OPTIONS = ServerOptions(
    header_timeout_s=1, body_timeout_s=1, idle_timeout_s=1, write_timeout_s=1, drain_s=1
)


class ImpatientServer(ServeProcess):
    """The process; its argument is a model folder, or none for the bundled model."""

    command = ("tests.doubles.impatient_server",)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])


def main(model: str | None = None) -> None:
    """Serve until Ctrl-C."""
    share_arenas()  # as `tbcluster serve` does
    with serving.listen("127.0.0.1", 0) as listener, Cluster(model, stages=2) as cluster:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        host, port = listener.getsockname()
        print(f"http://{host}:{port}: Ctrl-C ends it", file=sys.stderr, flush=True)  # noqa: T201
        with suppress(KeyboardInterrupt):
            server = serving.Server(Models.of(cluster), OPTIONS)
            server.open()
            with server.answering(listener):
                server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
