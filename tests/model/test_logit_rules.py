"""Rules in plain words against what the last stage does with them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.sample_utils import make_logits_processors, make_repetition_penalty

from tbcluster.core import Grammar, LogitRules, TokenId
from tbcluster.demo import MODEL_PATH
from tbcluster.model.grammar import Grammars
from tbcluster.model.grammar_mask import masks_of_model
from tbcluster.model.logit_rules import RowRules, apply_rules
from tbcluster.model.placeholders import refusing_evaluation
from tbcluster.model.source import check_folder
from tbcluster.model.tokenizer import open_tokenizer

VOCABULARY = 40
BIAS = LogitRules(logit_bias=((3, 2.5), (7, -100.0)))

tokens = st.lists(st.integers(0, VOCABULARY - 1), max_size=30)
rules_of_all_kinds = st.builds(
    LogitRules,
    logit_bias=st.lists(
        st.tuples(st.integers(0, VOCABULARY - 1), st.sampled_from([-100.0, -1.5, 0.0, 3.0])),
        max_size=4,
        unique_by=lambda pair: pair[0],
    ).map(tuple),
    presence_penalty=st.sampled_from([0.0, 0.5, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.25, -1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]),
    repetition_context=st.sampled_from([None, 1, 5, 20]),
)


def logits(num_rows: int = 1, seed: int = 0) -> mx.array:
    rng = np.random.default_rng(seed)
    return mx.array(rng.standard_normal((num_rows, VOCABULARY)).astype(np.float32) * 3)


def plain(
    row: mx.array, rules: LogitRules, prompt: list[TokenId], answer: list[TokenId]
) -> np.ndarray:
    """The rules, one after another, token by token."""
    changed = np.array(row, np.float32)
    for token, bias in rules.logit_bias:
        changed[token] += np.float32(bias)
    context = prompt + answer
    if rules.repetition_context is not None:
        context = context[-rules.repetition_context :]
    factor = np.float32(rules.repetition_penalty)
    for token in set(context):
        value = changed[token]
        changed[token] = value * factor if value < 0 else value / factor
    for token, count in Counter(answer).items():
        changed[token] -= np.float32(rules.presence_penalty + rules.frequency_penalty * count)
    return changed


def ruled(row: mx.array, rules: RowRules) -> np.ndarray:
    changed, failed = apply_rules(row, [rules])
    assert not failed
    return np.array(changed)[0]


@settings(max_examples=200, deadline=None)
@given(rules_of_all_kinds, tokens, tokens, st.integers(0, 30))
def test_rules_in_plain_words(
    rules: LogitRules, prompt: list[TokenId], answer: list[TokenId], num_known: int
) -> None:
    looked_at = prompt if rules.repetition_penalty != 1 else []
    state = RowRules(rules, looked_at, answer[:num_known], None)
    for token in answer[num_known:]:
        state.advance(token)
    expected = plain(logits()[0], rules, prompt, answer)
    np.testing.assert_allclose(ruled(logits(), state), expected, rtol=1e-6)


@pytest.mark.parametrize("context", [20, 1, 7])
def test_repetition_equals_mlx_lm(context: int) -> None:
    processor = make_repetition_penalty(1.3, context)
    rng = np.random.default_rng(3)
    seen = rng.integers(0, VOCABULARY, 15).tolist()
    state = RowRules(
        LogitRules(repetition_penalty=1.3, repetition_context=context), seen[-context:], (), None
    )
    for step in range(60):
        expected = processor(seen, mx.array(logits(seed=step)))
        assert np.array_equal(ruled(logits(seed=step), state), np.array(expected)[0])
        seen.append(int(rng.integers(0, VOCABULARY)))
        state.advance(seen[-1])


def test_bias_equals_mlx_lm() -> None:
    [processor] = make_logits_processors(logit_bias=dict(BIAS.logit_bias))
    expected = processor(mx.array([1]), logits())
    assert np.array_equal(ruled(logits(), RowRules(BIAS, (), (), None)), np.array(expected)[0])


def test_rows_keep_to_themselves() -> None:
    many = logits(4)
    penal = LogitRules(presence_penalty=1.0)
    states = [None, RowRules(BIAS, (), (), None), None, RowRules(penal, (), (1, 2, 2), None)]
    changed = np.array(apply_rules(many, states)[0])
    assert np.array_equal(changed[[0, 2]], np.array(many)[[0, 2]])
    np.testing.assert_allclose(changed[1], plain(many[1], BIAS, [], []))
    np.testing.assert_allclose(changed[3], plain(many[3], penal, [], [1, 2, 2]))
    # The logits that came are as they were: logprobs are read off them.
    assert np.array_equal(np.array(many), np.array(logits(4)))


def test_without_rules_the_very_same_logits() -> None:
    row = logits()
    assert apply_rules(row, [None])[0] is row
    assert apply_rules(row, [])[0] is row


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_logits_of_half_the_width_are_widened_first(dtype: mx.Dtype) -> None:
    narrow = logits().astype(dtype)
    changed, _ = apply_rules(narrow, [RowRules(BIAS, (), (), None)])
    assert changed.dtype == mx.float32
    np.testing.assert_allclose(
        np.array(changed)[0], plain(narrow.astype(mx.float32)[0], BIAS, [], [])
    )


def test_a_bias_twice_is_their_sum() -> None:
    twice = replace(BIAS, logit_bias=((3, 1.0), (3, 2.0)))
    assert ruled(logits(), RowRules(twice, (), (), None))[3] == np.array(logits())[0, 3] + 3


def test_nothing_is_computed() -> None:
    state = RowRules(replace(BIAS, frequency_penalty=1.0), (), (4,), None)
    refusing_evaluation(
        lambda scalar: apply_rules(mx.broadcast_to(scalar, (1, VOCABULARY)), [state]), 1
    )


@pytest.mark.parametrize("width", [1000, 1280, 1300])
def test_a_grammar_comes_last_and_alone_decides(width: int) -> None:
    folder = Path(MODEL_PATH)
    tokenizer = open_tokenizer(check_folder(folder))
    masks = masks_of_model(folder)
    grammar = Grammar(Grammars(tokenizer, 1280).regex("[ab]+"))
    letters = sorted(tokenizer.convert_tokens_to_ids(letter) for letter in "ab")
    biased = LogitRules(logit_bias=((500, 100.0), (letters[0], -100.0)), grammar=grammar)
    many = mx.zeros((3, width))
    states = [None, RowRules(biased, (), (), masks.follow(grammar, ())), None]
    changed, failed = apply_rules(many, states)
    assert not failed
    values = np.array(changed)
    assert np.array_equal(values[[0, 2]], np.zeros((2, width)))
    left = np.flatnonzero(np.isfinite(values[1])).tolist()
    assert set(letters) <= set(left)
    assert 500 not in left
    assert values[1, letters].tolist() == [-100.0, 0.0]


def test_a_row_whose_grammar_fails_is_told_and_the_others_are_not() -> None:
    masks = masks_of_model(Path(MODEL_PATH))
    bad = Grammar("nonsense")
    states = [
        RowRules(LogitRules(grammar=bad), (), (), masks.follow(bad, ())),
        RowRules(BIAS, (), (), None),
    ]
    changed, failed = apply_rules(mx.zeros((2, VOCABULARY)), states)
    assert list(failed) == [0]
    assert "cannot be followed" in failed[0]
    assert np.array(changed)[1, 3] == 2.5


def test_a_model_that_lacks_what_the_grammar_allows() -> None:
    folder = Path(MODEL_PATH)
    grammars = Grammars(open_tokenizer(check_folder(folder)), 1280)
    grammar = Grammar(grammars.regex("[a-z]+"))
    state = RowRules(
        LogitRules(grammar=grammar), (), (), masks_of_model(folder).follow(grammar, ())
    )
    _, failed = apply_rules(mx.zeros((1, 3)), [state])
    assert "the model lacks" in failed[0]
