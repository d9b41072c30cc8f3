"""One view for all who look: encoded once, and only while someone does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec

from tbcluster.server.live.view import LiveView

# Each holds a connection; more are scripts that have run away.
MAX_WATCHERS = 64
_encode = msgspec.json.Encoder().encode


class Feed:
    """Hands the newest view on. `publish` and `end` may be called in any thread; all else belongs
    to the event loop."""

    def __init__(self) -> None:
        self.newest: LiveView | None = None
        self._serial = 0
        self._is_ended = False
        self._encoded: tuple[int, bytes] = (0, b"")
        self._watchers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @property
    def is_watched(self) -> bool:
        """Whether anybody looks."""
        return bool(self._watchers)

    @property
    def is_full(self) -> bool:
        """Whether nobody else may look."""
        return len(self._watchers) >= MAX_WATCHERS

    def publish(self, view: LiveView) -> None:
        """This is what is seen now."""
        self.newest = view
        self._serial += 1
        self._wake()

    def end(self) -> None:
        """Let go of all who look: the server ends."""
        self._is_ended = True
        self._wake()

    async def watch(self) -> AsyncIterator[bytes]:
        """Each view from now on as one server-sent event; a reader that is slow misses some."""
        changed = asyncio.Event()
        self._watchers[changed] = asyncio.get_running_loop()
        seen = 0
        try:
            while not self._is_ended:
                if seen != self._serial:
                    seen = self._serial
                    yield self._event()
                else:
                    await changed.wait()
                changed.clear()
        finally:
            del self._watchers[changed]

    def _wake(self) -> None:
        for changed, loop in tuple(self._watchers.items()):
            # A loop that has ended has nobody who waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

    def _event(self) -> bytes:
        serial, content = self._encoded
        if serial != self._serial:
            serial, view = self._serial, self.newest
            content = b"data: " + _encode(view) + b"\n\n"
            self._encoded = serial, content
        return content
