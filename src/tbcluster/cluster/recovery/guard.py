"""Looks now and then whether the stages still compute what they did when they were loaded.

Memory decays, and nothing else would notice: weights with flipped bits give fluent, wrong answers.
"""

import logging
import queue
from collections.abc import Callable, Sequence
from math import inf

from tbcluster.core import TokenId
from tbcluster.engine.engine import Engine
from tbcluster.engine.examination import Baseline, Examination, Suspects
from tbcluster.errors import TbclusterError

logger = logging.getLogger(__name__)

EVERY_S = 600.0
# One that was interrupted is made again after so long.
AGAIN_S = 5.0
# An examination that is waited for is one step of a few tokens.
FIND_S = 30.0
# So many make a baseline: from where they differ on, digests say nothing.
NUM_FIRST = 2


class Guard:
    """Examines the stages of a replica by schedule, or when asked to. One thread uses it; what an
    examination gives comes to `post` in another.

    Args:
        prompt: What is computed each time.
        tolerance: See `Baseline`.
    """

    def __init__(
        self,
        prompt: Sequence[TokenId],
        tolerance: float,
        post: Callable[[Examination | TbclusterError], None],
        every_s: float = EVERY_S,
    ) -> None:
        self.num_checks = 0
        self.num_failures = 0
        self._prompt = tuple(prompt)
        self._tolerance = tolerance
        self._post = post
        self._every_s = every_s
        self._first: list[Examination] = []
        self._baseline: Baseline | None = None
        self._is_waiting = False
        self._due_at = -inf

    def due_in(self, now: float) -> float:
        """Seconds until the next examination; infinite while one is under way."""
        return inf if self._is_waiting else max(0.0, self._due_at - now)

    def examine(self, engine: Engine) -> None:
        """Begin an examination, unless one is under way; `judge` is due when it has been posted."""
        if not self._is_waiting:
            self._is_waiting = True
            engine.examine(self._prompt, self._post)

    def judge(
        self, result: Examination | TbclusterError, num_stages: int, now: float
    ) -> Suspects | None:
        """Which stages compute something else than they did; None if none does, or nobody knows."""
        if isinstance(result, TbclusterError):
            self.missed(now)
            return None
        self._is_waiting = False
        if self._baseline is None:
            self._learn(result, num_stages, now)
            return None
        self.num_checks += 1
        self._due_at = now + self._every_s
        suspects = self._baseline.compare(result)
        if suspects is not None:
            self.num_failures += 1
            self.forget()
        return suspects

    def missed(self, now: float) -> None:
        """What was posted cannot be judged, since stages are being brought back: it is made
        again."""
        self._is_waiting, self._due_at = False, now + AGAIN_S

    def find(self, engine: Engine) -> Suspects | None:
        """Which stages compute something else than they did, asked now and waited for."""
        if self._baseline is None:
            return None
        results: queue.SimpleQueue[Examination | TbclusterError] = queue.SimpleQueue()
        engine.examine(self._prompt, results.put)
        try:
            result = results.get(timeout=FIND_S)
        except queue.Empty:
            return None
        return None if isinstance(result, TbclusterError) else self._baseline.compare(result)

    def forget(self) -> None:
        """Other stages, or other weights, come now: what they compute is learned anew."""
        self._first.clear()
        self._baseline = None
        self._due_at = -inf

    def _learn(self, result: Examination, num_stages: int, now: float) -> None:
        self._first.append(result)
        if len(self._first) < NUM_FIRST:
            return
        self._baseline = Baseline(self._first, num_stages, self._tolerance)
        self._due_at = now + self._every_s
        if not self._baseline.is_exact:
            logger.info("these stages do not repeat themselves bit by bit")
