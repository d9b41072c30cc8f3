"""Prompts of exactly so many tokens, for tokenizers of all sorts."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.errors import EndpointError
from tbcluster.loadtest.prompts import Prompter


class Tokenizer:
    """Counts as a server does: `own` tokens around the text, and words of several tokens each."""

    def __init__(self, own: int, lengths: dict[str, int]) -> None:
        self._own = own
        self._lengths = lengths

    async def count(self, text: str) -> int:
        return self._own + sum(self._lengths.get(word, 1) for word in text.split())


def prompter(tokenizer: Tokenizer, seed: int = 0) -> Prompter:
    made = Prompter(tokenizer.count, seed)
    asyncio.run(made.learn())
    return made


lengths = st.dictionaries(st.sampled_from(["the", "of", "and", "to", "in"]), st.integers(2, 4))


@given(st.integers(0, 30), lengths, st.integers(31, 2000), st.integers(0, 100))
def test_every_prompt_has_the_tokens_that_were_wanted(
    own: int, words: dict[str, int], wanted: int, number: int
) -> None:
    tokenizer = Tokenizer(own, words)
    made = prompter(tokenizer)
    asyncio.run(made.check(wanted))
    assert asyncio.run(tokenizer.count(made.make(wanted, number))) == wanted
    assert asyncio.run(tokenizer.count(made.make(wanted, number, shared=wanted // 2))) == wanted


def test_prompts_differ_but_for_what_they_share() -> None:
    made = prompter(Tokenizer(2, {}))
    first, second = made.make(100, 1), made.make(100, 2)
    assert first != second
    assert first == made.make(100, 1)
    assert first != prompter(Tokenizer(2, {}), seed=1).make(100, 1)
    shared = [made.make(100, number, shared=52).split() for number in (1, 2)]
    assert shared[0][:50] == shared[1][:50]
    assert shared[0] != shared[1]


def test_a_tokenizer_of_letters_cannot_be_measured() -> None:
    class Letters(Tokenizer):
        async def count(self, text: str) -> int:
            return len(text)

    with pytest.raises(EndpointError, match="no words of one token"):
        prompter(Letters(0, {}))
