"""The loop that serves an application, and how it ends."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable

import uvicorn
from anyio import to_thread

from tbcluster.cluster.cluster import Cluster
from tbcluster.errors import ListenError
from tbcluster.server.app import create_app
from tbcluster.server.connections import MAX_HEAD_BYTES, connection_class, max_connections
from tbcluster.server.options import ServerOptions

# Requests that were ended, rather than finished, may still write their last words for so long.
SHUTDOWN_GRACE_S = 2
POLL_S = 0.05
# Parsing and encoding take processors, not patience: more threads would only hold more memory.
NUM_THREADS = min(8, os.cpu_count() or 1) + 1


def listen(host: str, port: int) -> socket.socket:
    """Bind now, so that a port in use is known before a model is loaded.

    Raises:
        ListenError: The address is in use or not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number and number > 0 else error
        advice = (
            "choose another --port, or 0 for a free one"
            if number == errno.EADDRINUSE
            else "choose another --host or --port"
        )
        raise ListenError(f"cannot listen on {host}:{port} ({reason}): {advice}") from error


def run(
    cluster: Cluster,
    listener: socket.socket,
    options: ServerOptions | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; requests that run then may finish, until the next Ctrl-C.

    Args:
        on_note: Called with each line a user should see.
    """
    Server(cluster, options or ServerOptions(), on_note).run(sockets=[listener])


class Server(uvicorn.Server):
    """Lets running requests finish, and ends those that do not with an error of their own before it
    cuts connections."""

    def __init__(
        self,
        cluster: Cluster,
        options: ServerOptions,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cluster = cluster
        self._options = options
        self._on_note = on_note
        self._app = create_app(cluster, options)
        super().__init__(
            uvicorn.Config(
                self._app,
                http=connection_class(options, max_connections()),
                ws="none",
                log_level="error",
                access_log=False,
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                # An integer to uvicorn, which only hands it on to the event loop.
                timeout_keep_alive=options.idle_timeout_s,  # type: ignore[arg-type]
                timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        to_thread.current_default_thread_limiter().total_tokens = NUM_THREADS
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let running requests finish, and end."""
        for server in self.servers:
            server.close()
        self._app.state.drain.is_draining = True
        await self._finish_running()
        self._cluster.end_requests("the server is shutting down")
        # It cuts short the finishing alone: the last words of what was ended still go out.
        self.force_exit = False
        await super().shutdown(sockets)

    async def _finish_running(self) -> None:
        running = self.server_state.tasks
        if running:
            what = "1 request" if len(running) == 1 else f"{len(running)} requests"
            them = "it" if len(running) == 1 else "them"
            self._on_note(f"finishing {what}, Ctrl-C again ends {them}")
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._options.drain_s
        while running and not self.force_exit and clock() < give_up_at:
            await asyncio.sleep(POLL_S)
