"""Token ids -> text that may be shown now.

A stop text may begin in one token and end in another: text that could still turn out to be the
beginning of one is held back, so that no part of a stop text ever reaches the client.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from tbcluster.core import FinishReason, TokenId

# How far back a token with a text of its own is looked for.
NUM_LAST_TOKENS = 8


class Detokenizer(Protocol):
    """mlx-lm's streaming detokenizers, for one sequence."""

    def add_token(self, token: TokenId) -> None: ...

    def finalize(self) -> None: ...

    @property
    def last_segment(self) -> str: ...


class TextStream:
    """The text of one sequence, as it becomes certain."""

    def __init__(self, detokenizer: Detokenizer, stop: tuple[str, ...]) -> None:
        self._detokenizer = detokenizer
        self._stop = stop
        self._held = ""

    @property
    def num_held(self) -> int:
        """How many characters are held back: they may be the beginning of a stop text."""
        return len(self._held)

    def add(self, token: TokenId, finish: FinishReason | None) -> tuple[str, str | None]:
        """The text that `token` makes certain, and the stop text that was reached, if one was. The
        token that ends a sequence (`finish` is STOP) has no text of its own."""
        if finish is not FinishReason.STOP:
            self._detokenizer.add_token(token)
        if finish is not None:
            self._detokenizer.finalize()
        if not self._stop:
            return self._detokenizer.last_segment, None
        self._held += self._detokenizer.last_segment
        found = first_stop(self._held, self._stop)
        if found is not None:
            end, stop = found
            text, self._held = self._held[:end], ""
            return text, stop
        keep = 0 if finish is not None else num_held_back(self._held, self._stop)
        split = len(self._held) - keep
        text, self._held = self._held[:split], self._held[split:]
        return text, None


def behind_prompt(
    new_detokenizer: Callable[[], Detokenizer], prompt: Sequence[TokenId]
) -> Detokenizer:
    """A detokenizer that has said something already: mlx-lm's drop a blank at the beginning of all
    text, which an answer that goes on where the prompt ends may well have."""
    for token in reversed(prompt[-NUM_LAST_TOKENS:]):
        detokenizer = new_detokenizer()
        detokenizer.add_token(token)
        # Not a part of a character only, nor a blank that is held back until more comes.
        if detokenizer.last_segment.strip():
            return detokenizer
    return new_detokenizer()


def first_stop(text: str, stop: tuple[str, ...]) -> tuple[int, str] | None:
    """Where the earliest stop text in `text` begins, and which it is."""
    found = [(position, word) for word in stop if (position := text.find(word)) >= 0]
    return min(found, default=None)


def num_held_back(text: str, stop: tuple[str, ...]) -> int:
    """How many characters at the end of `text` could be the beginning of a stop text."""
    return max((_overlap(text, word) for word in stop), default=0)


def _overlap(text: str, word: str) -> int:
    """The longest proper beginning of `word` that `text` ends with."""
    longest = min(len(word) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(word[:size])), 0)
