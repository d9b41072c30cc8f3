"""What the streams of chats and completions share: chunks, and how they end."""

from collections.abc import Iterator
from typing import Any

from tbcluster.errors import TbclusterError
from tbcluster.server.deltas import Usage
from tbcluster.server.openai.envelope import Envelope, usage_body
from tbcluster.server.problems import Dialect, error_event
from tbcluster.server.sse import DONE, MEDIA_TYPE, comment, event


class ChunkWriter:
    """A stream of chunks.

    Args:
        kind: The dialect's name for a chunk.
        includes_usage: Whether the token counts come before the end.
    """

    media_type = MEDIA_TYPE

    def __init__(self, kind: str, envelope: Envelope, *, includes_usage: bool) -> None:
        self._kind = kind
        self._envelope = envelope
        self._includes_usage = includes_usage

    def waiting(self, doing: str) -> Iterator[bytes]:
        """A comment."""
        yield comment(doing)

    def closing(self, usage: Usage) -> Iterator[bytes]:
        """The token counts where they were asked for, and the end."""
        if self._includes_usage:
            yield event({**self._envelope.body(self._kind, []), "usage": usage_body(usage)})
        yield DONE

    def failure(self, error: TbclusterError) -> Iterator[bytes]:
        """The error, and the end."""
        yield event(error_event(Dialect.OPENAI, error))
        yield DONE

    def _event(self, choice: dict[str, Any]) -> bytes:
        """A chunk with this choice."""
        body = self._envelope.body(self._kind, [choice])
        return event({**body, "usage": None} if self._includes_usage else body)
