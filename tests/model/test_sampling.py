"""A token is a function of its logits, parameters, seed and position, whatever its lane holds."""

import math
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.core import Grammar, LogitRules, Sample, SampledToken, SamplingParams
from tbcluster.demo import MODEL_PATH
from tbcluster.model.grammar_mask import masks_of_model
from tbcluster.model.logit_rules import RowRules
from tbcluster.model.placeholders import EvaluationNeededError, refusing_evaluation
from tbcluster.model.sampling import MIN_TEMPERATURE, PendingSamples, sample_tokens

VOCABULARY = 50
GREEDY = SamplingParams()
WARM = SamplingParams(temperature=1.0, seed=11)


def logits(seed: int = 0, num_tokens: int = 3) -> mx.array:
    rng = np.random.default_rng(seed)
    return mx.array(rng.standard_normal((1, num_tokens, VOCABULARY)).astype(np.float32))


def sample_token(row: mx.array, sample: Sample) -> SampledToken:
    [sampled] = sample_tokens(row, [sample]).result()
    return sampled


def tokens(params: SamplingParams, positions: range = range(40)) -> list[int]:
    return [sample_token(logits(), Sample(params, position)).token for position in positions]


def test_greedy_is_the_likeliest_after_the_last_position() -> None:
    for seed in range(5):
        given = logits(seed)
        expected = int(np.array(given)[0, -1].argmax())
        assert sample_token(given, Sample(GREEDY, 0)).token == expected


def test_greedy_leaves_the_random_state_alone() -> None:
    mx.random.seed(1)
    expected = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(1)
    sample_token(logits(), Sample(GREEDY, 0))
    assert mx.random.uniform(shape=(4,)).tolist() == expected


def test_a_seed_gives_equal_tokens_whatever_is_sampled_in_between() -> None:
    expected = tokens(WARM)
    mx.random.seed(99)
    got = []
    for position in range(40):
        mx.random.uniform(shape=(position,))
        sample_token(logits(1), Sample(replace(WARM, seed=position), 5))
        got.append(sample_token(logits(), Sample(WARM, position)).token)
    assert got == expected
    # In another order too: a step that is computed again picks the same token.
    assert tokens(WARM, range(39, -1, -1)) == expected[::-1]


def test_positions_and_seeds_differ() -> None:
    assert len(set(tokens(WARM))) > 5
    assert tokens(WARM) != tokens(replace(WARM, seed=12))
    # Position 1 of seed 11 is not position 0 of seed 12.
    assert tokens(WARM)[1:] != tokens(replace(WARM, seed=12))[:-1]


@pytest.mark.parametrize("seed", [0, 2**31, 2**63, 2**64 - 1, -1])
def test_any_integer_is_a_seed(seed: int) -> None:
    params = replace(WARM, seed=seed)
    assert tokens(params, range(3)) == tokens(params, range(3))


@pytest.mark.parametrize(
    "strict",
    [
        replace(WARM, top_k=1),
        replace(WARM, min_p=1.0),
        replace(WARM, top_p=1e-6),
        replace(WARM, temperature=1e-4),
    ],
    ids=["top_k", "min_p", "top_p", "temperature"],
)
def test_the_strictest_settings_are_greedy(strict: SamplingParams) -> None:
    [greedy] = set(tokens(GREEDY))
    assert set(tokens(strict)) == {greedy}


def test_top_k_keeps_the_k_likeliest() -> None:
    likeliest = np.argsort(-np.array(logits())[0, -1])[:3].tolist()
    assert set(tokens(replace(WARM, top_k=3, temperature=5.0), range(60))) == set(likeliest)


@pytest.mark.parametrize("top_k", [VOCABULARY, VOCABULARY + 1, 10**6])
def test_a_top_k_of_the_whole_vocabulary_keeps_all(top_k: int) -> None:
    assert tokens(replace(WARM, top_k=top_k)) == tokens(WARM)


def test_frequencies_follow_the_probabilities() -> None:
    num_samples = 1500
    row = mx.log(mx.array([[[0.1, 0.2, 0.7]]]))
    lane = mx.broadcast_to(row, (num_samples, 1, 3))
    sampled = sample_tokens(lane, [Sample(WARM, i) for i in range(num_samples)]).result()
    drawn = [one.token for one in sampled]
    for token, share in enumerate([0.1, 0.2, 0.7]):
        # Four standard deviations; the seed is fixed, so this passes always or never.
        margin = 4 * math.sqrt(share * (1 - share) / num_samples)
        assert abs(drawn.count(token) / num_samples - share) < margin


def test_no_logprobs_unless_asked() -> None:
    sampled = sample_token(logits(), Sample(WARM, 0))
    assert sampled.logprob is None
    assert sampled.top == ()


def test_logprobs_are_the_models_likeliest_first() -> None:
    row = np.array(logits())[0, -1].astype(np.float64)
    expected = row - np.log(np.exp(row).sum())
    sampled = sample_token(logits(), Sample(replace(WARM, num_logprobs=VOCABULARY), 3))
    assert sampled.token == sample_token(logits(), Sample(WARM, 3)).token
    assert sampled.logprob == pytest.approx(expected[sampled.token], abs=1e-5)
    ids = [token for token, _ in sampled.top]
    values = [value for _, value in sampled.top]
    assert ids == np.argsort(-expected).tolist()
    assert values == pytest.approx(expected[ids].tolist(), abs=1e-5)
    assert values == sorted(values, reverse=True)
    assert sum(map(math.exp, values)) == pytest.approx(1, abs=1e-5)


def test_logprobs_come_before_the_filters() -> None:
    plain = SamplingParams(num_logprobs=4)
    filtered = replace(plain, temperature=2.0, top_k=1, seed=3)
    assert sample_token(logits(), Sample(filtered, 0)) == sample_token(logits(), Sample(plain, 0))


@pytest.mark.parametrize("num_logprobs", [0, 1, 5])
def test_as_many_alternatives_as_asked(num_logprobs: int) -> None:
    sampled = sample_token(logits(), Sample(SamplingParams(num_logprobs=num_logprobs), 0))
    assert len(sampled.top) == num_logprobs
    assert sampled.logprob is not None
    if num_logprobs:
        assert sampled.top[0] == (sampled.token, sampled.logprob)


def test_among_equals_the_greedy_token_leads_its_alternatives() -> None:
    sampled = sample_token(mx.zeros((1, 1, VOCABULARY)), Sample(SamplingParams(num_logprobs=1), 0))
    assert sampled.top == ((sampled.token, sampled.logprob),)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_logits_of_half_the_width(dtype: mx.Dtype) -> None:
    params = replace(WARM, top_p=0.9, top_k=20, min_p=0.01, num_logprobs=2)
    rounded = logits().astype(dtype)
    got = sample_token(rounded, Sample(params, 0))
    assert got == sample_token(rounded.astype(mx.float32), Sample(params, 0))


def test_a_sample_for_each_row() -> None:
    with pytest.raises(ValueError, match="2 samples for 1 rows"):
        sample_tokens(logits(), [Sample(GREEDY, 0)] * 2)


# Few values each, so that rows of a lane often share a group.
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, MIN_TEMPERATURE / 2, 0.7, 1.0, 3.0]),
    top_p=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 5, VOCABULARY, VOCABULARY + 1]),
    min_p=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 3),
    num_logprobs=st.sampled_from([None, None, 0, 1, 4]),
)
LANES = st.lists(st.builds(Sample, PARAMS, st.integers(0, 3)), min_size=1, max_size=8)


def lane_logits(num_rows: int) -> mx.array:
    return mx.concatenate([logits(seed) for seed in range(num_rows)])


@settings(max_examples=150, deadline=None)
@given(LANES)
def test_a_row_gets_the_token_that_it_gets_alone(lane: list[Sample]) -> None:
    rows = lane_logits(len(lane))
    alone = tuple(sample_token(rows[i : i + 1], sample) for i, sample in enumerate(lane))
    assert sample_tokens(rows, lane).result() == alone


@settings(max_examples=100, deadline=None)
@given(st.data(), LANES)
def test_the_order_of_rows_is_the_lanes(data: st.DataObject, lane: list[Sample]) -> None:
    rows = lane_logits(len(lane))
    order = data.draw(st.permutations(range(len(lane))))
    sampled = sample_tokens(rows, lane).result()
    shuffled = sample_tokens(rows[mx.array(order)], [lane[i] for i in order]).result()
    assert shuffled == tuple(sampled[i] for i in order)


@settings(max_examples=100, deadline=None)
@given(LANES)
def test_only_what_passes_the_filters_is_drawn(lane: list[Sample]) -> None:
    rows = lane_logits(len(lane))
    for i, (sample, got) in enumerate(zip(lane, sample_tokens(rows, lane).result(), strict=True)):
        assert got.token in passing(np.array(rows[i, -1]), sample.params)


def passing(row: np.ndarray, params: SamplingParams) -> list[int]:
    """The filters in plain words, in mlx-lm's order."""
    likeliest_first = np.argsort(-row)
    if params.temperature < MIN_TEMPERATURE:
        return [int(likeliest_first[0])]
    probabilities = np.exp(row[likeliest_first]) / np.exp(row).sum()
    mass_before = np.cumsum(probabilities) - probabilities
    keep = probabilities >= params.min_p * probabilities[0]
    if 0 < params.top_p < 1:
        keep &= mass_before < params.top_p
    if params.top_k:
        keep &= np.arange(len(row)) < params.top_k
    return [int(token) for token in likeliest_first[keep]]


def test_rows_are_grouped_by_their_filters_alone() -> None:
    nucleus = [Sample(replace(WARM, seed=i, temperature=0.5 + i, top_p=0.9), i) for i in range(3)]
    greedy = [Sample(GREEDY, i) for i in range(3)]
    lane = [sample for pair in zip(greedy, nucleus, strict=True) for sample in pair]
    pending = sample_tokens(lane_logits(6), lane)
    assert pending.order == (0, 2, 4, 1, 3, 5)
    assert len(pending.arrays) == 1


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    lane = [Sample(GREEDY, 0), Sample(replace(WARM, top_p=0.9, num_logprobs=2), 1)]

    def build(scalar: mx.array) -> PendingSamples:
        return sample_tokens(mx.broadcast_to(scalar, (2, 1, VOCABULARY)), lane)

    refusing_evaluation(build, 1)
    with pytest.raises(EvaluationNeededError):
        refusing_evaluation(lambda scalar: build(scalar).result(), 1)


# Rules


def bias(*pairs: tuple[int, float]) -> RowRules:
    return RowRules(LogitRules(logit_bias=pairs), (), (), None)


@settings(max_examples=60, deadline=None)
@given(LANES, st.data())
def test_rows_without_rules_go_their_way(lane: list[Sample], data: st.DataObject) -> None:
    rows = lane_logits(len(lane))
    has_rules = data.draw(st.lists(st.booleans(), min_size=len(lane), max_size=len(lane)))
    rules = [bias((7, 3.0)) if has else None for has in has_rules]
    alone = tuple(
        sample_tokens(rows[i : i + 1], [sample], rules[i : i + 1]).result()[0]
        for i, sample in enumerate(lane)
    )
    assert sample_tokens(rows, lane, rules).result() == alone
    for got, free, has in zip(alone, sample_tokens(rows, lane).result(), has_rules, strict=True):
        assert has or got == free


@pytest.mark.parametrize(
    "params", [GREEDY, WARM, replace(WARM, top_k=1), replace(WARM, top_p=0.5, min_p=0.1)]
)
def test_rules_come_before_the_filters(params: SamplingParams) -> None:
    [sampled] = sample_tokens(logits(), [Sample(params, 0)], [bias((31, 100.0))]).result()
    assert sampled.token == 31
    [greedy] = set(tokens(GREEDY))
    [sampled] = sample_tokens(logits(), [Sample(params, 0)], [bias((greedy, -100.0))]).result()
    assert sampled.token != greedy


def test_logprobs_come_before_the_rules() -> None:
    params = replace(GREEDY, num_logprobs=VOCABULARY)
    [ruled] = sample_tokens(logits(), [Sample(params, 0)], [bias((31, 100.0))]).result()
    free = sample_token(logits(), Sample(params, 0))
    assert ruled.token == 31
    assert ruled.top == free.top
    assert ruled.logprob == dict(free.top)[31]


@pytest.mark.parametrize("num_logprobs", [None, 2])
def test_a_row_that_fails_does_so_alone(num_logprobs: int | None) -> None:
    bad = Grammar("nonsense")
    followed = masks_of_model(Path(MODEL_PATH)).follow(bad, ())
    failing = RowRules(LogitRules(grammar=bad), (), (), followed)
    lane = [Sample(replace(WARM, num_logprobs=num_logprobs), i) for i in range(3)]
    rows = lane_logits(3)
    got = sample_tokens(rows, lane, [None, failing, None]).result()
    expected = sample_tokens(rows, lane).result()
    assert (got[0], got[2]) == (expected[0], expected[2])
    assert "cannot be followed" in (got[1].error or "")


@pytest.mark.parametrize("top_k", [0, 1, 5, 1000])
@pytest.mark.parametrize("top_p", [0.3, 1.0])
@pytest.mark.parametrize("min_p", [0.0, 0.2])
def test_a_mask_and_every_filter(top_k: int, top_p: float, min_p: float) -> None:
    class Three:
        """A grammar that allows three tokens."""

        def mask(self) -> np.ndarray:
            return np.array([1 << 3 | 1 << 9, 1 << 1], np.uint32)

        def advance(self, token: int) -> None:
            raise AssertionError

    rules = RowRules(LogitRules(), (), (), Three())  # type: ignore[arg-type]
    params = replace(WARM, top_k=top_k, top_p=top_p, min_p=min_p, temperature=5.0)
    drawn = {
        sample_tokens(logits(), [Sample(params, i)], [rules]).result()[0].token for i in range(40)
    }
    assert drawn <= {3, 9, 33}
    assert len(drawn) == 1 if top_k == 1 else len(drawn) > 1 or top_p < 1 or min_p > 0
