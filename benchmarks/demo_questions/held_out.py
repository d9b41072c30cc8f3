"""The questions kept out of training, so that the score measures more than memory.

In addition, subtraction and counting a pair of numbers is held out in every phrasing and in both
languages. In the other tasks a fact cannot be worked out, so one phrasing of it is held out: the
fact is learnt through the others.
"""

import random
from functools import cache

from .question import Language, Question, key
from .tasks import LANGUAGES, MAX_OPERAND, TABLE_TASKS, Fact, addition, counting, subtraction

__all__ = ["held_out_keys", "held_out_pairs", "held_out_questions"]

_SEED = 20_25
_NUM_QUESTIONS = 14  # of each task in each language

Pair = tuple[int, int]


@cache
def held_out_pairs() -> dict[str, list[Pair]]:
    """Pairs of numbers held out of training, by task; a sum is held out in both orders."""
    rng = random.Random(_SEED)
    count = _NUM_QUESTIONS * len(LANGUAGES)
    numbers = range(2, MAX_OPERAND + 1)
    sums = [(a, b) for a in numbers for b in numbers if a <= b and a + b <= 100]
    differences = [(a, b) for a in numbers for b in numbers if a > b]
    counts = [(a, b) for a in range(1, 80) for b in range(a + 3, a + 11)]
    return {
        "addition": rng.sample(sums, count),
        "subtraction": rng.sample(differences, count),
        "counting": rng.sample(counts, count),
    }


def held_out_questions() -> list[Question]:
    """The held-out questions, the same ones in the same order at every call."""
    return _worked_out_questions() + _table_questions()


@cache
def held_out_keys() -> frozenset[str]:
    """Keys of the held-out prompts: a training prompt with one of them must be left out."""
    return frozenset(key(question.prompt) for question in held_out_questions())


def _worked_out_questions() -> list[Question]:
    rng = random.Random(_SEED + 1)
    questions = []
    for task, of in (("addition", addition), ("subtraction", subtraction), ("counting", counting)):
        for index, (a, b) in enumerate(held_out_pairs()[task]):
            fact = of(a, b, LANGUAGES[index % len(LANGUAGES)])
            questions.append(_question(fact, rng.choice(fact.prompts)))
    return questions


def _table_questions() -> list[Question]:
    rng = random.Random(_SEED + 2)
    questions = []
    for task, facts in TABLE_TASKS.items():
        if task == "greeting":  # a greeting has no right answer
            continue
        every = list(facts())
        for language in LANGUAGES:
            questions += _sample(rng, [fact for fact in every if fact.language == language])
    return questions


def _sample(rng: random.Random, facts: list[Fact]) -> list[Question]:
    """Questions on distinct facts, each in one phrasing that no other fact shares."""
    return [_question(fact, rng.choice(fact.prompts)) for fact in rng.sample(facts, _NUM_QUESTIONS)]


def _question(fact: Fact, prompt: str) -> Question:
    language: Language = fact.language
    return Question(fact.task, language, prompt, fact.answer)
