"""How an answer becomes a stream's bytes, and what is sent while there is nothing to tell."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from typing import Protocol

from tbcluster.errors import TbclusterError
from tbcluster.server.deltas import Delta, Usage

# Silence is told from when a token came; its bytes left a moment later.
MIN_SILENCE = 0.9


class Writer(Protocol):
    """Words a stream in one dialect. Each method gives the bytes to send, event by event."""

    media_type: str

    def waiting(self, doing: str) -> Iterable[bytes]:
        """That the answer goes on later, in what clients of this dialect pass over; perhaps before
        the opening. `doing` is one line."""
        ...

    def opening(self) -> Iterable[bytes]:
        """Before the first delta."""
        ...

    def delta(self, delta: Delta) -> Iterable[bytes]:
        """A token of a choice."""
        ...

    def closing(self, usage: Usage) -> Iterable[bytes]:
        """After the last token of the last choice."""
        ...

    def failure(self, error: TbclusterError) -> Iterable[bytes]:
        """Instead of the rest, or of everything: there may have been no opening."""
        ...


async def events(
    writer: Writer,
    deltas: AsyncGenerator[Delta | None, None],
    usage: Usage,
    *,
    first: Delta | None,
    doing: Callable[[], str],
    keep_alive_s: float,
) -> AsyncIterator[bytes]:
    """A stream, event by event. What one token makes is sent at once.

    Args:
        deltas: The rest; None while nothing comes.
        usage: Right once they have ended.
        first: None where nothing has come yet.
        doing: Says what is waited for.
        keep_alive_s: After so many seconds without a byte the client is told to wait on.
    """
    clock = asyncio.get_running_loop().time
    is_open = first is not None
    async with aclosing(deltas):
        if first is not None:
            yield b"".join([*writer.opening(), *writer.delta(first)])
        else:
            yield b"".join(writer.waiting(doing()))
        sent_at = clock()
        try:
            async for delta in deltas:
                parts: list[bytes] = []
                if delta is not None:
                    if not is_open:
                        parts += writer.opening()
                        is_open = True
                    parts += writer.delta(delta)
                now = clock()
                if not parts and now - sent_at >= MIN_SILENCE * keep_alive_s:
                    # Tokens may come for long without a word: those of a call, say.
                    parts += writer.waiting(doing())
                    sent_at = now
                if sent := b"".join(parts):
                    yield sent
                    sent_at = now
        except TbclusterError as error:
            yield b"".join(writer.failure(error))
        else:
            yield b"".join(writer.closing(usage))
