"""What servers of OpenAI's API send, as far as it is measured. Pure.

Whatever else a server sends is passed over; what is here and of another type is refused when it is
decoded, so that no figure is made of it.
"""

from typing import Any

import msgspec


class Delta(msgspec.Struct, frozen=True):
    """A piece of a chat's answer, and what servers call a piece of its reasoning."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct, frozen=True):
    """A completion has `text`, a chat `delta`."""

    text: str | None = None
    delta: Delta | None = None


class CachedTokens(msgspec.Struct, frozen=True):
    """Of the prompt, those that the server knew."""

    cached_tokens: int | None = None


class Energy(msgspec.Struct, frozen=True):
    """tbcluster's own field."""

    joules: float | None = None


class Usage(msgspec.Struct, frozen=True):
    """What the server counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CachedTokens | None = None
    energy: Energy | None = None


class Chunk(msgspec.Struct, frozen=True):
    """An event of a stream; servers give errors in many shapes."""

    choices: tuple[Choice, ...] | None = None
    usage: Usage | None = None
    error: Any = None


class Model(msgspec.Struct, frozen=True):
    """One that the server lists; `status` is tbcluster's, others have their own."""

    id: str
    status: Any = None

    @property
    def is_loaded(self) -> bool:
        """Whether the server says so."""
        return isinstance(self.status, dict) and self.status.get("value") == "loaded"


class Models(msgspec.Struct, frozen=True):
    """The list of them."""

    data: tuple[Model, ...]
