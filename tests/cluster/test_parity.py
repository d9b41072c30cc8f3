"""The parity check's verdict."""

import math
from collections.abc import Sequence

import pytest

from tbcluster.cluster.parity import compare
from tbcluster.core import SampledToken
from tbcluster.errors import ParityError
from tbcluster.wire.control import Reference

TOLERANCE = 0.1
# The third token is a near-tie: its runner-up is 0.05 away.
REFERENCE = Reference((5, 6, 7, 8), (-0.1, -0.2, -0.9, -0.3), (2.0, 3.0, 0.05, 1.0))
EQUAL = [(5, -0.1), (6, -0.2), (7, -0.9), (8, -0.3)]


def verdict(pairs: Sequence[tuple[int, float | None]]) -> None:
    compare(REFERENCE, [SampledToken(token, logprob) for token, logprob in pairs], TOLERANCE)


def changed(step: int, token: int, logprob: float | None) -> list[tuple[int, float | None]]:
    return [*EQUAL[:step], (token, logprob), *EQUAL[step + 1 :]]


def test_equal_passes() -> None:
    verdict(EQUAL)


@pytest.mark.parametrize("step", range(4))
def test_rounding_passes(step: int) -> None:
    token, logprob = EQUAL[step]
    verdict(changed(step, token, logprob + 0.09))
    verdict(changed(step, token, logprob - 0.09))


def test_a_near_tie_may_go_either_way_and_ends_the_comparison() -> None:
    verdict(changed(2, 99, -0.93))
    # What follows another token is another text.
    verdict([*EQUAL[:2], (99, -0.93), (1, -7.0)])


FAILING = {
    "other token": (0, 99, -0.1),
    "other token later": (3, 99, -0.3),
    "less likely": (1, 6, -0.31),
    "likelier": (1, 6, -0.05),
    "not a number": (1, 6, math.nan),
    "infinite": (1, 6, -math.inf),
    "no logprob": (1, 6, None),
    "far less likely at a near-tie": (2, 99, -4.0),
    "not a number at a near-tie": (2, 99, math.nan),
    "no logprob at a near-tie": (2, 99, None),
}


@pytest.mark.parametrize(("step", "token", "logprob"), FAILING.values(), ids=FAILING.keys())
def test_more_than_rounding_fails(step: int, token: int, logprob: float | None) -> None:
    with pytest.raises(ParityError, match=f"probe token {step + 1}: .* token {token} "):
        verdict(changed(step, token, logprob))


@pytest.mark.parametrize("num_tokens", [0, 3, 5])
def test_a_wrong_number_of_tokens_fails(num_tokens: int) -> None:
    with pytest.raises(ParityError, match=f"gave {num_tokens} tokens .* not 4"):
        verdict([*EQUAL, EQUAL[-1]][:num_tokens])
