"""Prompts of exactly so many tokens, for a server whose tokenizer nobody knows here.

Words that are one token each are found by asking: the server counts a text that holds one of them
many times. A prompt is then what the server adds of its own, and so many random words.
"""

import random
from collections.abc import Awaitable, Callable

from tbcluster.errors import EndpointError

# Common in English, and for most tokenizers one token each with the blank before them.
CANDIDATES = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "for",
    "on",
    "that",
    "with",
    "as",
    "at",
    "by",
    "from",
    "it",
    "be",
    "was",
    "are",
    "this",
    "or",
    "an",
    "have",
    "not",
    "but",
    "they",
    "one",
    "all",
    "we",
    "can",
    "had",
    "there",
    "when",
    "up",
    "use",
    "your",
    "how",
    "each",
    "which",
    "time",
]
TIMES = 40
ENOUGH = 12
MAX_CORRECTIONS = 6

Count = Callable[[str], Awaitable[int]]


class Prompter:
    """Makes prompts; `learn` first.

    Args:
        count: Has the server count a prompt's tokens.
        seed: Of the random words.
    """

    def __init__(self, count: Count, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._words: list[str] = []
        self._own = 0

    async def learn(self, on_progress: Callable[[int, int], None] = lambda _, __: None) -> None:
        """Find words of one token each, and how many tokens the server adds.

        Raises:
            EndpointError: None are found.
        """
        base = await self._count(" the" * TIMES)
        twice = await self._count(" the" * (2 * TIMES))
        per_word = (twice - base) / TIMES
        self._own = base - round(per_word * TIMES)
        for number, word in enumerate(CANDIDATES):
            on_progress(number, len(CANDIDATES))
            if await self._count(f" {word}" * TIMES) - self._own == TIMES:
                self._words.append(word)
            if len(self._words) == ENOUGH:
                return
        if len(self._words) < 2:
            raise EndpointError(
                "no words of one token each were found in the server's tokenizer: prompts of exact "
                "lengths cannot be made for it"
            )

    async def check(self, num_tokens: int) -> None:
        """Have the server count one prompt of this length, and correct what is off.

        Raises:
            EndpointError: The length cannot be had.
        """
        for _ in range(MAX_CORRECTIONS):
            counted = await self._count(self.make(num_tokens, -1))
            if counted == num_tokens:
                return
            self._own += counted - num_tokens
        raise EndpointError(
            f"a prompt of {num_tokens} tokens cannot be made: the server counts {counted}"
        )

    @property
    def least(self) -> int:
        """Tokens of the shortest prompt."""
        return self._own + 1

    def make(self, num_tokens: int, number: int, shared: int = 0) -> str:
        """The prompt of this number: others have other words, but for the first `shared` tokens."""
        num_words = max(1, num_tokens - self._own)
        num_shared = max(0, min(num_words, shared - self._own))
        common, own = random.Random(self._seed), random.Random(f"{self._seed}/{number}")  # noqa: S311
        words = [common.choice(self._words) for _ in range(num_shared)]
        words += [own.choice(self._words) for _ in range(num_words - num_shared)]
        return "".join(f" {word}" for word in words)
