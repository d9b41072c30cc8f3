"""Which stage computes something else than it did. Pure.

An examination is one step on a cache of its own. Each stage gives a digest of what it sends on, so
that two examinations of the same tokens show the first stage that differs.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tbcluster.core import SampledToken


class Examination(NamedTuple):
    """What stages computed for some tokens.

    Attributes:
        digests: One per stage visit, in order, of what that stage sent on.
        sampled: The greedy token after them, with the two likeliest and their logprobs.
    """

    digests: tuple[bytes, ...]
    sampled: SampledToken


class Suspects(NamedTuple):
    """Stages of which one computes something else than before: from `first` to `last`, both
    included. What came to the first may also have been changed on its way there."""

    first: int
    last: int


class Baseline:
    """What stages computed when they were known to be right.

    Args:
        examinations: Two or more, of the same tokens by the same workers. From where these differ
            on, digests say nothing, and only the sampled token is compared.
        num_stages: A looped model's stages are visited more than once.
        tolerance: How far two right computations of one logprob may lie apart.

    Raises:
        ValueError: There are fewer than two, or not of the same stages.
    """

    def __init__(
        self, examinations: Sequence[Examination], num_stages: int, tolerance: float
    ) -> None:
        num_visits = {len(examination.digests) for examination in examinations}
        if len(examinations) < 2 or len(num_visits) != 1 or num_visits == {0}:
            raise ValueError(
                f"{len(examinations)} examinations with {sorted(num_visits)} digests are no "
                "baseline: make two of the same stages"
            )
        self._first = examinations[0]
        self._num_stages = num_stages
        self._tolerance = tolerance
        pairs = zip(*(examination.digests for examination in examinations), strict=True)
        differing = (visit for visit, digests in enumerate(pairs) if len(set(digests)) > 1)
        self._num_exact = next(differing, num_visits.pop())

    @property
    def is_exact(self) -> bool:
        """Whether all stages gave the same bits each time."""
        return self._num_exact == len(self._first.digests)

    def compare(self, now: Examination) -> Suspects | None:
        """Who computes something else now; None if nobody does.

        Raises:
            ValueError: It is an examination of other stages.
        """
        if len(now.digests) != len(self._first.digests):
            raise ValueError(
                f"{len(now.digests)} digests came, the baseline has {len(self._first.digests)}: "
                "make another one for other stages"
            )
        exact = zip(self._first.digests[: self._num_exact], now.digests, strict=False)
        for visit, (before, after) in enumerate(exact):
            if before != after:
                return Suspects(visit % self._num_stages, visit % self._num_stages)
        if self.is_exact or self._is_alike(now.sampled):
            return None
        num_left = len(self._first.digests) - self._num_exact
        if num_left >= self._num_stages:
            return Suspects(0, self._num_stages - 1)
        return Suspects(self._num_exact % self._num_stages, self._num_stages - 1)

    def _is_alike(self, sampled: SampledToken) -> bool:
        """Whether rounding alone may be what differs. The other token of a near-tie will do."""
        before = dict(self._first.sampled.top)
        expected = before.get(sampled.token)
        if expected is None or sampled.logprob is None:
            return False
        is_near_tie = max(before.values()) - expected <= self._tolerance
        # `<=` and not `not >`: a NaN must fail.
        return is_near_tie and abs(sampled.logprob - expected) <= self._tolerance
