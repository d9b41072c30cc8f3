"""The tasks: each turns facts into prompts in several phrasings, with the one reply to all of them.

A `Fact` is complete: the corpus, the held-out set and the tests need nothing else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .about import ABOUT_EN, ABOUT_FR
from .facts import (
    CAPITALS,
    COLOURS_EN,
    COLOURS_FR,
    OPPOSITES_EN,
    OPPOSITES_FR,
    SPELLING_EN,
    SPELLING_FR,
    TRANSLATIONS,
)
from .greetings import GREETINGS_EN, GREETINGS_FR
from .phrasings import PHRASINGS
from .question import Language

__all__ = [
    "LANGUAGES",
    "MAX_OPERAND",
    "TABLE_TASKS",
    "Fact",
    "addition",
    "counting",
    "spelling",
    "subtraction",
    "times",
]

LANGUAGES: tuple[Language, ...] = ("en", "fr")
MAX_OPERAND = 99

# Words that begin with a vowel sound take "d'"; these begin with an "h" that counts as a consonant.
_ASPIRATED = ("haut", "huit", "haine")


@dataclass(frozen=True)
class Fact:
    """One fact in one language: the ways to ask for it, the reply and the value checked in it."""

    task: str
    language: Language
    prompts: tuple[str, ...]
    reply: str
    answer: str


def _fact(task: str, language: Language, reply: str, answer: str, **fields: object) -> Fact:
    prompts = tuple(text.format(**fields) for text in PHRASINGS[task, language])
    return Fact(task, language, prompts, reply, answer)


def addition(a: int, b: int, language: Language) -> Fact:
    """The sum of two numbers, restated first so that all phrasings share one computation."""
    return _fact("addition", language, f"{a} + {b} = {a + b}.", str(a + b), a=a, b=b)


def subtraction(a: int, b: int, language: Language) -> Fact:
    """The difference of two numbers, `a >= b`."""
    return _fact("subtraction", language, f"{a} - {b} = {a - b}.", str(a - b), a=a, b=b)


def times(a: int, b: int, language: Language) -> Fact:
    """A line of the times tables."""
    return _fact("times", language, f"{a} x {b} = {a * b}.", str(a * b), a=a, b=b)


def counting(a: int, b: int, language: Language) -> Fact:
    """The numbers from a to b, both included, up or down."""
    step = 1 if a <= b else -1
    numbers = ", ".join(str(number) for number in range(a, b + step, step))
    return _fact("counting", language, numbers, numbers, a=a, b=b)


def spelling(word: str, language: Language) -> Fact:
    """The letters of a word."""
    letters = "-".join(word)
    return _fact("spelling", language, letters, letters, w=word)


def _all_times() -> Iterator[Fact]:
    for language in LANGUAGES:
        for a in range(11):
            for b in range(11):
                yield times(a, b, language)


def _all_spelling() -> Iterator[Fact]:
    yield from (spelling(word, "en") for word in SPELLING_EN)
    yield from (spelling(word, "fr") for word in SPELLING_FR)


def _capitals() -> Iterator[Fact]:
    for english, french, capital, capitale in CAPITALS:
        reply = f"The capital of {english} is {capital}."
        yield _fact("capitals", "en", reply, capital, c=english)
        reply = f"La capitale {french} est {capitale}."
        yield _fact("capitals", "fr", reply, capitale, c=french)


def _colours() -> Iterator[Fact]:
    for subject, colour in COLOURS_EN:
        reply = f"{_capitalised(subject)} is {colour}."
        yield _fact("colours", "en", reply, colour, s=subject)
    for subject, colour in COLOURS_FR:
        reply = f"{_capitalised(subject)} est {colour}."
        yield _fact("colours", "fr", reply, colour, s=subject, ds=_of_noun(subject))


def _opposites() -> Iterator[Fact]:
    for word, opposite in OPPOSITES_EN:
        reply = f"The opposite of {word} is {opposite}."
        yield _fact("opposites", "en", reply, opposite, w=word)
    for word, opposite in OPPOSITES_FR:
        reply = f"Le contraire {of_word(word)} est {opposite}."
        yield _fact("opposites", "fr", reply, opposite, w=word, dw=of_word(word))


def _translations() -> Iterator[Fact]:
    for english, french in TRANSLATIONS:
        for word, other, to_en, to_fr in (
            (english, french, "French", "français"),
            (french, english, "English", "anglais"),
        ):
            reply = f"In {to_en}, {word} is {other}."
            yield _fact("translation", "en", reply, other, w=word, l=to_en)
            reply = f"En {to_fr}, {word} se dit {other}."
            yield _fact("translation", "fr", reply, other, w=word, l=to_fr)


def _listed(
    task: str, english: list[tuple[str, list[str]]], french: list[tuple[str, list[str]]]
) -> Callable[[], Iterator[Fact]]:
    def facts() -> Iterator[Fact]:
        for reply, prompts in english:
            yield Fact(task, "en", tuple(prompts), reply, reply)
        for reply, prompts in french:
            yield Fact(task, "fr", tuple(prompts), reply, reply)

    return facts


# Tasks whose facts are a table that has to be learnt; in the others a fact can be worked out.
TABLE_TASKS: dict[str, Callable[[], Iterator[Fact]]] = {
    "times": _all_times,
    "spelling": _all_spelling,
    "capitals": _capitals,
    "colours": _colours,
    "opposites": _opposites,
    "translation": _translations,
    "tbcluster": _listed("tbcluster", ABOUT_EN, ABOUT_FR),
    "greeting": _listed("greeting", GREETINGS_EN, GREETINGS_FR),
}


def of_word(word: str) -> str:
    """The French "de" before a word: "de petit", "d'ouvert"."""
    vowel = word[0] in "aeiouhéèêâà" and not word.startswith(_ASPIRATED)
    return f"d'{word}" if vowel else f"de {word}"


def _of_noun(noun: str) -> str:
    """The French "de" before an article: "du ciel", "de la mer", "d'une banane"."""
    if noun.startswith("le "):
        return f"du {noun[3:]}"
    return f"d'{noun}" if noun.startswith("un") else f"de {noun}"


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
