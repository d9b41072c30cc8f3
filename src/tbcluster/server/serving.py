"""The loop that serves an application, and how it ends."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as await_futures
from contextlib import contextmanager

import uvicorn
from anyio import to_thread

from tbcluster.cluster.energy.watch import EnergyWatch
from tbcluster.cluster.models.models import Models
from tbcluster.errors import ListenError
from tbcluster.machine import RackView
from tbcluster.server.app import create_app, create_starting_app
from tbcluster.server.connections import MAX_HEAD_BYTES, connection_class, max_connections
from tbcluster.server.draining import Drain
from tbcluster.server.live.events import EventLog
from tbcluster.server.live.live import Live
from tbcluster.server.metrics import Metrics
from tbcluster.server.options import ServerOptions
from tbcluster.server.starting import Front
from tbcluster.server.status import server_word

# Requests that were ended, rather than finished, may still write their last words for so long.
SHUTDOWN_GRACE_S = 2
POLL_S = 0.05
# How long Ctrl-C may stay unnoticed.
SIGNAL_S = 0.2
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


class Server(uvicorn.Server):
    """Says that the first model is starting until `open` is called. Its end lets running requests
    finish, and ends those that do not with an error of their own before it cuts connections.

    Args:
        models: Loaded, or to be loaded meanwhile.
        on_note: Called with each line a user should see.
        rack: The rack as its coordinator sees it; None for one machine alone.
        events: Where what happens to the rack is kept.

    Attributes:
        energy: Knows what nodes draw and requests cost.
    """

    def __init__(
        self,
        models: Models,
        options: ServerOptions,
        on_note: Callable[[str], None] = lambda _: None,
        *,
        rack: Callable[[], RackView] | None = None,
        events: EventLog | None = None,
    ) -> None:
        self._models = models
        self._options = options
        self._on_note = on_note
        nodes = None if rack is None else lambda: rack().nodes
        self.energy = EnergyWatch(models.clusters, nodes)
        self._metrics = Metrics(models.clusters, energy=self.energy)
        self._drain = Drain()
        self._is_open = False
        self._live = Live(models, self._word, self.energy, rack, events)
        feed = self._live.feed
        self._front = Front(create_starting_app(models, options, self._metrics, self._drain, feed))
        self._loop: Future[None] = Future()
        super().__init__(
            uvicorn.Config(
                self._front,
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

    @contextmanager
    def answering(self, listener: socket.socket) -> Iterator[None]:
        """Answer requests in a thread while the block runs; its end cuts them off."""
        with ThreadPoolExecutor(1, "tbcluster-server") as executor:
            self._loop = executor.submit(self.run, [listener])
            try:
                yield
            finally:
                self.should_exit = self.force_exit = True

    def open(self) -> None:
        """Let requests through to the models."""
        self._front.app = create_app(
            self._models, self._options, self._metrics, self._drain, self._live.feed
        )
        self._is_open = True

    def wait(self) -> None:
        """Serve until Ctrl-C or SIGTERM, which are raised again at the end; requests that run then
        may finish, until the next Ctrl-C. Only the main thread hears of them."""
        with self.capture_signals():
            # A signal may come to another thread, which does not wake this one.
            while not self._loop.done():
                await_futures([self._loop], SIGNAL_S)
        self._loop.result()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        to_thread.current_default_thread_limiter().total_tokens = NUM_THREADS
        self._live.start()
        self.energy.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let running requests finish, and end."""
        for server in self.servers:
            server.close()
        self._drain.is_draining = True
        await self._send_away()
        await self._finish_running()
        if self._is_open:
            self._models.end_requests("the server is shutting down")
        # It cuts short the finishing alone: the last words of what was ended still go out.
        self.force_exit = False
        await super().shutdown(sockets)
        await asyncio.to_thread(self._live.close)
        await asyncio.to_thread(self.energy.close)

    async def _send_away(self) -> None:
        """Who only looks on is not waited for."""
        self._live.end()
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + SHUTDOWN_GRACE_S
        while self._live.feed.is_watched and clock() < give_up_at:
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(0)  # their last bytes go out

    def _word(self) -> str:
        return server_word(self._models, is_open=self._is_open)

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
