"""The training corpus: an endless, seeded stream of short chats that avoids the held-out questions.

A chat is what a chat client sends: sometimes a system message, then one or several turns.
"""

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from .held_out import held_out_keys, held_out_pairs
from .question import Language, key
from .tasks import (
    LANGUAGES,
    MAX_OPERAND,
    TABLE_TASKS,
    Fact,
    addition,
    counting,
    spelling,
    subtraction,
)
from .unknown import (
    LIMIT_REPLIES,
    UNKNOWN_REPLIES,
    beyond_limits_prompt,
    invented_name,
    unknown_prompt,
)

__all__ = ["Corpus", "Message"]

Message = tuple[str, str]
"""Role and content."""

# How often each task is asked. Sums and differences are the only ones that take computation.
TASK_WEIGHTS = {
    "addition": 20,
    "subtraction": 20,
    "times": 8,
    "counting": 6,
    "spelling": 9,
    "capitals": 7,
    "colours": 4,
    "opposites": 8,
    "translation": 12,
    "tbcluster": 9,
    "greeting": 3,
    "unknown": 5,
    "limits": 4,
}

_NUM_TURNS = (1, 1, 1, 1, 1, 2, 2, 2, 3, 4)

_SYSTEM_PARTS = (
    "You are a helpful assistant.",
    "You are a concise assistant.",
    "You are an assistant.",
    "You are a helpful, honest and harmless assistant.",
    "You are tbcluster.",
    "Answer briefly.",
    "Be brief.",
    "Be concise and accurate.",
    "Answer in one sentence.",
    "Answer in the language of the user.",
    "Do not invent anything.",
    "Use a friendly tone.",
    "Current date: 2 March 2026.",
    "The user is a developer.",
    "Tu es un assistant utile.",
    "Tu es un assistant.",
    "Réponds brièvement.",
    "Réponds en une phrase.",
    "Réponds dans la langue de la question.",
)

_BEFORE: dict[Language, tuple[str, ...]] = {
    "en": ("Please, ", "Hello, ", "Hi! ", "Hey, ", "Quick question: ", "Now, ", "And "),
    "fr": ("Bonjour, ", "Salut ! ", "Question : ", "Dis, ", "Et maintenant, ", "Et "),
}
_AFTER: dict[Language, tuple[str, ...]] = {
    "en": (" please", ", please", " Please.", " Thanks!", " thanks"),
    "fr": (" s'il te plaît", ", s'il vous plaît", " stp", " Merci !", " merci"),
}


@dataclass(frozen=True)
class _Askable:
    """A fact with only the prompts that training may use."""

    language: Language
    prompts: tuple[str, ...]
    reply: str


class Corpus:
    """Random chats from one seed: the same seed gives the same chats."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._tables = {task: _askable(list(facts())) for task, facts in TABLE_TASKS.items()}
        self._tasks = list(TASK_WEIGHTS)
        self._weights = list(TASK_WEIGHTS.values())
        self._pairs = {task: frozenset(pairs) for task, pairs in held_out_pairs().items()}

    def chats(self) -> Iterator[list[Message]]:
        """Chats of one to four turns, without end."""
        while True:
            yield self.chat(self._rng.choice(_NUM_TURNS))

    def chat(self, num_turns: int) -> list[Message]:
        """One chat; its turns have nothing to do with each other."""
        messages: list[Message] = []
        if self._rng.random() < 0.3:
            parts = self._rng.sample(_SYSTEM_PARTS, self._rng.choice((1, 1, 1, 2, 3)))
            messages.append(("system", " ".join(parts)))
        for _ in range(num_turns):
            messages += self.turn()
        return messages

    def turn(self) -> list[Message]:
        """A question and its reply."""
        task = self._rng.choices(self._tasks, self._weights)[0]
        language = self._rng.choice(LANGUAGES)
        prompt, reply = self._ask(task, language)
        varied = self._vary(prompt, language)
        kept = prompt if key(varied) in held_out_keys() else varied
        return [("user", kept), ("assistant", reply)]

    def _ask(self, task: str, language: Language) -> tuple[str, str]:
        if task == "unknown":
            return unknown_prompt(self._rng, language), UNKNOWN_REPLIES[language]
        if task == "limits":
            return beyond_limits_prompt(self._rng, language), LIMIT_REPLIES[language]
        if task in self._tables and not (task == "spelling" and self._rng.random() < 0.15):
            known = self._rng.choice(self._tables[task][language])
            return self._rng.choice(known.prompts), known.reply
        fact = self._worked_out(task, language)
        return self._rng.choice(fact.prompts), fact.reply

    def _worked_out(self, task: str, language: Language) -> Fact:
        while True:
            if task == "spelling":
                return spelling(invented_name(self._rng), language)
            if task == "counting":
                a, b = self._range()
            else:
                a, b = self._operand(), self._operand()
            if task == "subtraction":
                a, b = max(a, b), min(a, b)
            held_out = self._pairs[task]
            if (a, b) in held_out or (task == "addition" and (b, a) in held_out):
                continue
            of = {"addition": addition, "subtraction": subtraction, "counting": counting}[task]
            return of(a, b, language)

    def _operand(self) -> int:
        """Small numbers are asked for most, so half of the operands are below 60."""
        return self._rng.randint(0, 60 if self._rng.random() < 0.3 else MAX_OPERAND)

    def _range(self) -> tuple[int, int]:
        rng = self._rng
        if rng.random() < 0.1:
            return 1, rng.choice((5, 10, 10, 15, 20, 20, 25, 30, 50, 100))
        a = rng.randint(0, 95)
        b = min(a + rng.randint(1, rng.choice((6, 12, 12, 20))), 100)
        return (b, a) if rng.random() < 0.15 else (a, b)

    def _vary(self, prompt: str, language: Language) -> str:
        """The prompt as somebody in a hurry would type it, half of the time."""
        rng = self._rng
        text = prompt
        if rng.random() < 0.15:
            before = rng.choice(_BEFORE[language])
            text = before + (text if text.startswith("I ") else text[0].lower() + text[1:])
        elif rng.random() < 0.3:
            text = text.lower()
        if rng.random() < 0.25:
            text = text.rstrip(" ?.!=") or text
        if rng.random() < 0.1:
            text = text.rstrip(".") + rng.choice(_AFTER[language])
        return self._typing(text, language)

    def _typing(self, text: str, language: Language) -> str:
        """Keyboard habits: curly apostrophes, spacing before a question mark, missing accents."""
        rng = self._rng
        if rng.random() < 0.08:
            text = text.replace("'", "\u2019")
        if language == "fr":
            text = text.replace(" ?", rng.choice((" ?", " ?", " ?", "?", "\u00a0?")))
            if rng.random() < 0.06:
                text = _without_accents(text)
        elif rng.random() < 0.03:
            text = text.replace("?", " ?")
        return text


def _askable(facts: list[Fact]) -> dict[Language, list[_Askable]]:
    tables: dict[Language, list[_Askable]] = {language: [] for language in LANGUAGES}
    for fact in facts:
        prompts = tuple(text for text in fact.prompts if key(text) not in held_out_keys())
        tables[fact.language].append(_Askable(fact.language, prompts, fact.reply))
    return tables


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(char for char in decomposed if not unicodedata.combining(char))
