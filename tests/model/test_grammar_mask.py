"""Following a grammar beside the forward passes; reasoning is free of it."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import Grammar, TokenId
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import StageError
from tbcluster.model.grammar import Grammars, Mask, open_grammar_tokenizer
from tbcluster.model.grammar_mask import (
    FollowedGrammar,
    GrammarMasks,
    ThinkingGate,
    masks_of_model,
)
from tbcluster.model.source import check_folder
from tbcluster.model.tokenizer import open_tokenizer

VOCAB_SIZE = 1280
TOKENIZER = open_tokenizer(check_folder(Path(MODEL_PATH)))
GRAMMARS = Grammars(TOKENIZER, VOCAB_SIZE)
[END] = TOKENIZER.eos_token_ids
OPEN, CLOSE = 300, (301, 302)
# Too complex as soon as the number is over.
COMPLEX = """start: NUMBER REST
NUMBER: /[0-9]{3}:/
REST: /(.*a.{12})/ & /(.*b.{17})/ & /(.*c.{19})/
"""


@pytest.fixture(scope="module")
def masks() -> GrammarMasks:
    return masks_of_model(Path(MODEL_PATH))


def allowed(mask: Mask) -> list[TokenId]:
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return [int(token) for token in np.flatnonzero(bits)]


def walk(
    followed: FollowedGrammar, seed: int, most: int = 400, *, chance_to_end: float = 0.5
) -> list[TokenId]:
    """Tokens drawn evenly from what is allowed, until the end of the text is."""
    rng = random.Random(seed)
    tokens: list[TokenId] = []
    while len(tokens) < most:
        choices = allowed(followed.mask())
        if END in choices and len(choices) > 1 and rng.random() >= chance_to_end:
            choices.remove(END)
        token = END if END in choices else rng.choice(choices)
        if token == END:
            return tokens
        tokens.append(token)
        followed.advance(token)
    return tokens


@pytest.mark.parametrize("seed", range(10))
def test_any_walk_is_in_the_grammar(masks: GrammarMasks, seed: int) -> None:
    schema = {"type": "array", "items": {"enum": ["a", 1, None, {"b": []}]}, "maxItems": 9}
    text = GRAMMARS.json_schema(schema)
    answer = TOKENIZER.decode(walk(masks.follow(Grammar(text), ()), seed))
    assert all(item in ("a", 1, None, {"b": []}) for item in json.loads(answer))


def test_what_was_generated_already_is_walked_first(masks: GrammarMasks) -> None:
    grammar = Grammar(GRAMMARS.regex("[a-d]{30}"))
    tokens = walk(masks.follow(grammar, ()), 1)
    for split in range(len(tokens)):
        fresh, resumed = masks.follow(grammar, tokens[:split]), masks.follow(grammar, ())
        for token in tokens[:split]:
            resumed.mask()
            resumed.advance(token)
        assert allowed(fresh.mask()) == allowed(resumed.mask())


def test_the_end_is_allowed_where_the_grammar_accepts_and_alone_where_it_is_over(
    masks: GrammarMasks,
) -> None:
    [letter] = TOKENIZER.encode("a", add_special_tokens=False)
    followed = masks.follow(Grammar(GRAMMARS.regex("aa?")), ())
    assert END not in allowed(followed.mask())
    followed.advance(letter)
    assert allowed(followed.mask()) == sorted([letter, END])
    followed.advance(letter)
    assert allowed(followed.mask()) == [END]
    followed.advance(END)
    assert allowed(followed.mask()) == [END]


def test_a_grammar_that_becomes_too_complex_says_so(masks: GrammarMasks) -> None:
    followed = masks.follow(Grammar(GRAMMARS.lark(COMPLEX)), ())
    assert allowed(followed.mask())
    with pytest.raises(StageError, match=r"cannot be followed: .*lexer"):
        walk(followed, 0)
    # For good: whoever asks again is told the same.
    with pytest.raises(StageError, match="cannot be followed"):
        followed.mask()


def test_a_grammar_that_takes_ever_longer_is_ended(
    masks: GrammarMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = masks.follow(Grammar(GRAMMARS.regex("[ab]*")), ())
    assert len(walk(usual, 0, 2000, chance_to_end=0)) == 2000
    monkeypatch.setattr("tbcluster.model.grammar_mask.MOST_MASK_SECONDS", 0.02)
    ambiguous = 'start: e\ne: e e e e | e e e | e e | "a" | "b"'
    with pytest.raises(StageError, match="cannot be followed: it is too ambiguous"):
        walk(masks.follow(Grammar(GRAMMARS.lark(ambiguous)), ()), 0, 2000, chance_to_end=0)


def test_a_grammar_that_does_not_parse_says_so(masks: GrammarMasks) -> None:
    with pytest.raises(StageError, match="cannot be followed"):
        masks.follow(Grammar("nonsense"), ()).mask()


def test_a_token_that_was_not_allowed_says_so(masks: GrammarMasks) -> None:
    followed = masks.follow(Grammar(GRAMMARS.regex("a+")), ())
    followed.advance(TOKENIZER.encode("b", add_special_tokens=False)[0])
    with pytest.raises(StageError, match="cannot be followed"):
        followed.mask()


def test_a_tokenizer_that_cannot_be_opened_ends_the_row_alone() -> None:
    def fail() -> None:
        raise ValueError("no such tokenizer")

    broken = GrammarMasks(fail)  # type: ignore[arg-type]
    with pytest.raises(StageError, match="no such tokenizer"):
        broken.follow(Grammar(GRAMMARS.json_object()), ()).mask()


def test_all_but_the_end_is_free_while_reasoning(masks: GrammarMasks) -> None:
    text = GRAMMARS.regex("a+")
    followed = masks.follow(Grammar(text, (OPEN,), CLOSE, is_thinking=True), (17, *CLOSE[:1]))
    everything = [token for token in range(VOCAB_SIZE) if token != END]
    assert allowed(followed.mask()) == everything
    followed.advance(CLOSE[1])
    assert allowed(followed.mask()) == allowed(masks.follow(Grammar(text), ()).mask())


@pytest.mark.parametrize("text", [GRAMMARS.regex("a+"), None])
def test_reasoning_is_closed_after_as_many_tokens_as_it_may_have(
    masks: GrammarMasks, text: str | None
) -> None:
    grammar = Grammar(text, (OPEN,), CLOSE, is_thinking=True, max_thinking=3)
    followed = masks.follow(grammar, ())
    for token in (17, CLOSE[0], 18):
        assert len(allowed(followed.mask())) == VOCAB_SIZE - 1
        followed.advance(token)
    for token in CLOSE:
        assert allowed(followed.mask()) == [token]
        followed.advance(token)
    free = (
        list(range(VOCAB_SIZE)) if text is None else allowed(masks.follow(Grammar(text), ()).mask())
    )
    assert allowed(followed.mask()) == free
    resumed = masks.follow(grammar, (17, CLOSE[0], 18, CLOSE[0]))
    assert allowed(resumed.mask()) == [CLOSE[1]]


def test_reasoning_may_be_opened_by_the_first_tokens_only(masks: GrammarMasks) -> None:
    grammar = Grammar(GRAMMARS.regex("[0-9]+"), (OPEN, 17), CLOSE)
    digits = allowed(masks.follow(Grammar(grammar.text), ()).mask())
    assert OPEN not in digits
    followed = masks.follow(grammar, ())
    assert allowed(followed.mask()) == sorted([*digits, OPEN])
    followed.advance(digits[0])
    assert OPEN not in allowed(followed.mask())
    # A marker that has begun is finished, as long as the grammar has no other way to go on.
    assert allowed(masks.follow(grammar, (OPEN,)).mask()) == [17]
    thinking = masks.follow(grammar, (OPEN, 17))
    assert len(allowed(thinking.mask())) == VOCAB_SIZE - 1
    assert allowed(masks.follow(grammar, (OPEN, 17, 5, *CLOSE)).mask()) == digits


def test_an_answer_may_begin_as_reasoning_does(masks: GrammarMasks) -> None:
    # Kimi K3 opens reasoning and tool calls with one and the same token.
    text = GRAMMARS.lark(f"start: <[{OPEN}]> <[18]> <[19]>")
    grammar = Grammar(text, (OPEN, 17), CLOSE)
    followed = masks.follow(grammar, ())
    assert allowed(followed.mask()) == [OPEN]
    followed.advance(OPEN)
    assert allowed(followed.mask()) == [17, 18]
    answered = masks.follow(grammar, (OPEN, 18))
    assert allowed(answered.mask()) == [19]
    followed.advance(17)
    assert len(allowed(followed.mask())) == VOCAB_SIZE - 1
    for token in CLOSE:
        followed.advance(token)
    assert allowed(followed.mask()) == [OPEN]
    followed.advance(OPEN)
    assert allowed(followed.mask()) == [18]


@pytest.mark.parametrize("num_before", [0, 2])
def test_a_bound_alone_holds_for_all_reasoning_of_an_answer(
    masks: GrammarMasks, num_before: int
) -> None:
    grammar = Grammar(None, (OPEN, 17), CLOSE, max_thinking=2)
    followed = masks.follow(grammar, (9,) * num_before)
    for token in (OPEN, 17, 5, 6):
        assert len(allowed(followed.mask())) >= VOCAB_SIZE - 1
        followed.advance(token)
    # What is opened again is closed at once.
    for token in (*CLOSE, 9, OPEN, 17, *CLOSE):
        choices = allowed(followed.mask())
        assert choices == [token] if token in CLOSE else len(choices) == VOCAB_SIZE
        followed.advance(token)
    assert len(allowed(followed.mask())) == VOCAB_SIZE


def test_reasoning_of_no_tokens_is_closed_when_it_is_opened(masks: GrammarMasks) -> None:
    grammar = Grammar(GRAMMARS.regex("[0-9]+"), (OPEN,), CLOSE, max_thinking=0)
    digits = allowed(masks.follow(Grammar(grammar.text), ()).mask())
    for already, choices in (
        ((), sorted([*digits, OPEN])),
        ((OPEN,), [CLOSE[0]]),
        ((OPEN, CLOSE[0]), [CLOSE[1]]),
        ((OPEN, *CLOSE), digits),
    ):
        assert allowed(masks.follow(grammar, already).mask()) == choices


small = st.integers(0, 2)


@given(
    st.lists(small, max_size=2).map(tuple),
    st.lists(small, min_size=1, max_size=3).map(tuple),
    st.booleans(),
    st.lists(small, max_size=12).map(tuple),
)
def test_the_gate_against_plain_words(
    begins: tuple[int, ...], ends: tuple[int, ...], is_thinking: bool, tokens: tuple[int, ...]
) -> None:
    gate = ThinkingGate(Grammar("", begins, ends, is_thinking))
    got = [gate.is_thinking]
    for token in tokens:
        gate.take(token)
        got.append(gate.is_thinking)
    start = 0 if is_thinking else len(tokens) + 1
    if not is_thinking and begins and tokens[: len(begins)] == begins:
        start = len(begins)
    over = [
        end
        for end in range(start + len(ends), len(tokens) + 1)
        if tokens[:end][-len(ends) :] == ends
    ]
    end = over[0] if over else len(tokens) + 1
    assert got == [start <= place < end for place in range(len(tokens) + 1)]


@given(
    st.lists(small, min_size=1, max_size=2).map(tuple),
    st.lists(small, min_size=1, max_size=3).map(tuple),
    st.booleans(),
    st.integers(0, 3),
    st.lists(small, max_size=30),
)
def test_reasoning_never_takes_more_tokens_than_it_may(
    begins: tuple[int, ...], ends: tuple[int, ...], is_thinking: bool, most: int, wanted: list[int]
) -> None:
    gate = ThinkingGate(Grammar(None, begins, ends, is_thinking, most))
    num_free = 0
    for token in wanted:
        num_free += gate.is_thinking and gate.closing is None
        gate.take(token if gate.closing is None else gate.closing)
    assert num_free <= most
    for _ in ends:
        if (closing := gate.closing) is not None:
            gate.take(closing)
    assert gate.closing is None


def test_masks_are_as_wide_as_the_tokenizer(masks: GrammarMasks) -> None:
    assert open_grammar_tokenizer(TOKENIZER).vocab_size == VOCAB_SIZE
    thinking = masks.follow(Grammar(GRAMMARS.json_object(), (), CLOSE, is_thinking=True), ())
    assert max(allowed(thinking.mask())) == VOCAB_SIZE - 1
