"""Which stage is named when examinations differ."""

import math

import pytest

from tbcluster.core import SampledToken
from tbcluster.engine.examination import Baseline, Examination, Suspects

TOLERANCE = 0.1
SAMPLED = SampledToken(7, -0.5, ((7, -0.5), (8, -0.55)))


def examination(digests: str, sampled: SampledToken = SAMPLED) -> Examination:
    """One letter per stage visit."""
    return Examination(tuple(letter.encode() for letter in digests), sampled)


def baseline(*digests: str, num_stages: int = 3) -> Baseline:
    return Baseline([examination(each) for each in digests], num_stages, TOLERANCE)


@pytest.mark.parametrize(
    ("now", "suspects"),
    [
        ("abc", None),
        ("xbc", Suspects(0, 0)),
        ("axc", Suspects(1, 1)),
        ("axy", Suspects(1, 1)),
        ("abx", Suspects(2, 2)),
        ("xyz", Suspects(0, 0)),
    ],
)
def test_the_first_that_differs_is_named(now: str, suspects: Suspects | None) -> None:
    assert baseline("abc", "abc").compare(examination(now)) == suspects
    assert baseline("abc", "abc").is_exact


def test_equal_digests_are_enough_whatever_was_sampled() -> None:
    other = SampledToken(9, -3.0, ((9, -3.0), (7, -4.0)))
    assert baseline("abc", "abc").compare(examination("abc", other)) is None


@pytest.mark.parametrize(
    ("now", "suspects"),
    [("abcabc", None), ("abcaxc", Suspects(1, 1)), ("abcabx", Suspects(2, 2))],
)
def test_a_looped_model_visits_its_stages_again(now: str, suspects: Suspects | None) -> None:
    assert baseline("abcabc", "abcabc").compare(examination(now)) == suspects


def near_tie(logprob: float, other: float) -> SampledToken:
    return SampledToken(8, other, ((8, other), (7, logprob)))


@pytest.mark.parametrize(
    ("sampled", "is_alike"),
    [
        (SAMPLED, True),
        (SampledToken(7, -0.59), True),
        (SampledToken(7, -0.61), False),
        (SampledToken(7, math.nan), False),
        (SampledToken(7), False),
        (near_tie(-0.5, -0.49), True),
        (near_tie(-0.5, -0.3), False),
        (SampledToken(9, -0.5), False),
    ],
)
def test_from_where_right_stages_differ_only_the_token_counts(
    sampled: SampledToken, is_alike: bool
) -> None:
    """The middle stage gives other bits each time, and so do all behind it."""
    uneven = baseline("abc", "axy")
    assert not uneven.is_exact
    suspects = uneven.compare(examination("auv", sampled))
    assert suspects == (None if is_alike else Suspects(1, 2))
    # What comes before it is still compared bit by bit.
    assert uneven.compare(examination("zbc", sampled)) == Suspects(0, 0)


def test_the_other_token_of_what_was_no_near_tie_is_wrong() -> None:
    clear = SampledToken(7, -0.1, ((7, -0.1), (8, -2.5)))
    uneven = Baseline([examination("a", clear), examination("b", clear)], 1, TOLERANCE)
    assert uneven.compare(examination("c", near_tie(-2.6, -2.5))) == Suspects(0, 0)


@pytest.mark.parametrize(
    ("digests", "suspects"),
    [(("abcabc", "abcabx"), Suspects(2, 2)), (("abcabc", "axcabc"), Suspects(0, 2))],
)
def test_in_a_looped_model_all_stages_may_follow_one_that_varies(
    digests: tuple[str, str], suspects: Suspects
) -> None:
    wrong = SampledToken(9, -0.5)
    assert baseline(*digests).compare(examination("abcabc", wrong)) == suspects


@pytest.mark.parametrize("digests", [(), ("abc",), ("abc", "ab"), ("", "")])
def test_a_baseline_is_made_of_two_of_the_same_stages(digests: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="make two"):
        baseline(*digests)


def test_other_stages_need_another_baseline() -> None:
    with pytest.raises(ValueError, match="2 digests came, the baseline has 3"):
        baseline("abc", "abc").compare(examination("ab"))
