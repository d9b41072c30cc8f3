"""A tokenizer in which every token id is a character: 104 is "h"."""

from tbcluster.core import TokenId


class CharacterDetokenizer:
    """Keeps back the last `delay` characters until `finalize`, as mlx-lm's detokenizers do with
    bytes that are no whole character yet."""

    def __init__(self, delay: int = 0) -> None:
        self._delay = delay
        self._pending = ""
        self._ready = ""

    def add_token(self, token: TokenId) -> None:
        self._pending += chr(token)
        split = max(0, len(self._pending) - self._delay)
        self._ready += self._pending[:split]
        self._pending = self._pending[split:]

    def finalize(self) -> None:
        self._ready += self._pending
        self._pending = ""

    @property
    def last_segment(self) -> str:
        segment, self._ready = self._ready, ""
        return segment


class WordDetokenizer(CharacterDetokenizer):
    """Token ids are indices into a list of words."""

    def __init__(self, words: list[str], delay: int = 0) -> None:
        super().__init__(delay)
        self._words = words

    def add_token(self, token: TokenId) -> None:
        for character in self._words[token]:
            super().add_token(ord(character))
