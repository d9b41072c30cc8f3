"""Token ids -> text that may be shown now.

A stop text may begin in one token and end in another: text that could still turn out to be the
beginning of one is held back, so that no part of a stop text ever reaches the client.
"""

from typing import Protocol

from tbcluster.core import FinishReason, TokenId


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

    def add(self, token: TokenId, finish: FinishReason | None) -> tuple[str, bool]:
        """The text that `token` makes certain, and whether a stop text was reached. The token that
        ends a sequence (`finish` is STOP) has no text of its own."""
        if finish is not FinishReason.STOP:
            self._detokenizer.add_token(token)
        if finish is not None:
            self._detokenizer.finalize()
        if not self._stop:
            return self._detokenizer.last_segment, False
        self._held += self._detokenizer.last_segment
        end = first_stop(self._held, self._stop)
        if end is not None:
            text, self._held = self._held[:end], ""
            return text, True
        keep = 0 if finish is not None else num_held_back(self._held, self._stop)
        split = len(self._held) - keep
        text, self._held = self._held[:split], self._held[split:]
        return text, False


def first_stop(text: str, stop: tuple[str, ...]) -> int | None:
    """Where the earliest stop text in `text` begins."""
    found = [position for position in (text.find(word) for word in stop) if position >= 0]
    return min(found, default=None)


def num_held_back(text: str, stop: tuple[str, ...]) -> int:
    """How many characters at the end of `text` could be the beginning of a stop text."""
    return max((_overlap(text, word) for word in stop), default=0)


def _overlap(text: str, word: str) -> int:
    """The longest proper beginning of `word` that `text` ends with."""
    longest = min(len(word) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(word[:size])), 0)
