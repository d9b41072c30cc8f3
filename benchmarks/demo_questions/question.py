"""A question with one right answer, and the check that a reply gives it."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "fr"]

# In these tasks the whole reply is the answer. Elsewhere a sentence may lead up to the value.
WHOLE_REPLY_TASKS = frozenset({"counting", "spelling", "tbcluster", "greeting"})

# A right sentence is short: without this bound, a reply that lists values would pass by luck.
MAX_REPLY_WORDS = 16

_QUOTES = str.maketrans({"\u2019": "'", "\u00a0": " ", "\u202f": " "})
_EDGES = ".,;:!?\"'()\u00ab\u00bb\u201c\u201d"


@dataclass(frozen=True)
class Question:
    """One question of a task, in a language, with the value that a right reply ends with."""

    task: str
    language: Language
    prompt: str
    answer: str

    def is_right(self, text: str) -> bool:
        """Whether a reply gives the answer.

        The reply must end with the answer as whole words ("142" is not "42"), and be nothing
        more than the answer where the task asks for a list or a sentence. Case, punctuation
        at the edges of words and spacing do not count; accents do.
        """
        given, expected = words(text), words(self.answer)
        if self.task in WHOLE_REPLY_TASKS:
            return given == expected
        return len(given) <= MAX_REPLY_WORDS and given[-len(expected) :] == expected


def words(text: str) -> list[str]:
    """Lower-case words of a text, freed from punctuation at their edges (a minus sign stays)."""
    plain = unicodedata.normalize("NFC", text).translate(_QUOTES).casefold()
    return [word for raw in plain.split() if (word := raw.strip(_EDGES))]


def key(prompt: str) -> str:
    """What two prompts share when they differ by case, accents and punctuation only."""
    bare = unicodedata.normalize("NFD", prompt.casefold())
    letters = "".join(char for char in bare if not unicodedata.combining(char))
    # Signs of arithmetic carry meaning: without them "9 + 4" and "9 - 4" would be one prompt.
    return " ".join(re.findall(r"[a-z0-9]+|[+*=\u00d7\u2212-]", letters))
