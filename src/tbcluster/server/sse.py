"""Server-sent events, as bytes."""

from typing import Any

import msgspec

MEDIA_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


def comment(text: str) -> bytes:
    """One line that clients of server-sent events pass over."""
    return f": {text}\n\n".encode()


def event(body: dict[str, Any], name: str | None = None) -> bytes:
    """One event; dialects that name theirs give `name`."""
    data = b"data: " + _encode(body) + b"\n\n"
    return data if name is None else f"event: {name}\n".encode() + data
